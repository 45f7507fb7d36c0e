import torch

from bevdepth_core.model.depth_net import DeformableConv


def test_features_that_are_no_numbers_reach_the_output_and_no_foreign_memory():
    deform = DeformableConv(4).eval()
    found = deform(torch.full((1, 4, 8, 8), torch.nan))
    assert found.shape == (1, 4, 8, 8)
    assert found.isnan().any()
