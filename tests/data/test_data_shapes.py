from __future__ import annotations

from robustdistill.data.faults import Faults
from robustdistill.data.shapes import Shapes
from robustdistill.errors import BadInput


def told(*shapes: tuple[int, int, int]) -> str:
    """What is said of images of these shapes, in this order."""
    seen, faults = Shapes(), Faults("photos")
    for position, shape in enumerate(shapes):
        seen.see(shape, position)
    seen.tell(faults, "photos/{}.png".format, "photos")
    try:
        faults.raise_any()
    except BadInput as fault:
        return str(fault)
    return ""


def test_one_shape_is_no_fault() -> None:
    assert told() == told((3, 40, 50), (3, 40, 50)) == ""


def test_sizes_are_one_fault_with_counts_and_an_example_of_each_rare_one() -> None:
    assert told((3, 60, 40), (3, 40, 50), (3, 40, 50), (3, 40, 50), (3, 60, 40), (3, 33, 90)).splitlines() == [
        "images of 3 sizes: 3 of 50 × 40 pixels, 2 of 40 × 60 pixels (for example photos/0.png), "
        "1 of 90 × 33 pixels (for example photos/5.png)",
        "  where: photos",
        "  fix:   set data.resize: 32 in params.yaml, or another edge in pixels (--resize 32 of "
        "`robustdistill init` and `data add` does it), or make all images one size",
    ]


def test_the_proposed_edge_is_no_larger_than_the_smallest_image_and_is_allowed() -> None:
    assert "data.resize: 28 " in told((1, 28, 30), (1, 50, 50))
    assert "data.resize: 4 " in told((1, 2, 9), (1, 50, 50))


def test_a_thousand_sizes_are_not_listed() -> None:
    message = told(*((3, 40, width) for width in range(40, 1040)))
    assert "images of 1000 sizes: " in message and ", and 996 more sizes\n" in message


def test_channels_and_sizes_are_told_apart() -> None:
    message = told((3, 8, 8), (1, 8, 8), (3, 9, 8), (3, 8, 8))
    assert message.startswith("there are 2 faults")
    assert "gray and RGB images: 3 RGB, 1 gray (for example photos/1.png)" in message
    assert "images of 2 sizes: 3 of 8 × 8 pixels, 1 of 8 × 9 pixels (for example photos/2.png)" in message
