"""PyTorch's global flags are set while the network runs, and are restored afterward."""

import pytest
import torch

from bevdepth_core.engine.flags import convolution_flags


def flags() -> tuple[bool, bool, bool]:
    convolutions = torch.backends.cudnn
    return (
        convolutions.allow_tf32,
        convolutions.benchmark,
        torch.backends.cuda.matmul.allow_tf32,
    )


@pytest.fixture(params=[True, False])
def before(request):
    """Set all flags to one value, yield this value, and restore the old flags after the test."""
    saved = flags()
    set_flags(*[request.param] * 3)
    yield request.param
    set_flags(*saved)


def set_flags(tf32: bool, benchmark: bool, products: bool) -> None:
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cuda.matmul.allow_tf32 = products


@pytest.mark.parametrize(
    ('dtype', 'tf32'),
    [(torch.float32, False), (torch.float16, True), (torch.bfloat16, True)],
)
def test_tf32_is_off_for_float32_and_on_for_float16_and_bfloat16(before, dtype, tf32):
    with convolution_flags(dtype):
        assert flags() == (tf32, before, tf32)
    assert flags() == (before, before, before)


def test_the_option_search_enables_the_benchmark_mode_of_cudnn(before):
    with convolution_flags(torch.float32, search=True):
        assert flags() == (False, True, False)
    assert flags() == (before, before, before)


def test_all_flags_are_restored_after_an_error(before):
    with pytest.raises(KeyError), convolution_flags(torch.float16, search=True):
        raise KeyError
    assert flags() == (before, before, before)


def test_the_previous_value_of_each_flag_is_restored():
    saved = flags()
    try:
        for values in ((True, False, False), (False, True, False), (False, False, True)):
            set_flags(*values)
            with convolution_flags(torch.float32):
                pass
            assert flags() == values
    finally:
        set_flags(*saved)
