import torch

from bevdepth_core.model.depth_net import DeformableConv


def test_nan_features_reach_the_output_and_nothing_is_read_out_of_bounds():
    deform = DeformableConv(4).eval()
    found = deform(torch.full((1, 4, 8, 8), torch.nan))
    assert found.shape == (1, 4, 8, 8)
    assert found.isnan().any()
