"""The settings that grade the synthetic collections: how far domains lie apart, and how artefacts tell the class."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from sklearn.ensemble import RandomForestClassifier

from fastccsa.collections import CLASSES, render_collections
from fastccsa.collections.rendering.artefacts import add_artefacts
from fastccsa.collections.rendering.confounding import confounded
from fastccsa.collections.rendering.scene import Picture, render
from fastccsa.collections.rendering.shifts import shifted
from fastccsa.collections.rendering.styles import STYLES, Style
from fastccsa.system.errors import InputError

DOMAINS = ("HAM", "DMF", "D7P", "MSK", "PH2", "SON", "UDA")
HAM = STYLES["HAM"][0]
ALL_STYLES = [
    pytest.param(style, id=f"{domain}{view}") for domain in STYLES for view, style in enumerate(STYLES[domain])
]
PROBABILITIES = ("hairy", "aperture", "ruler", "bubbles", "stickers", "ink", "cast")

# Drawn with seed 7 and width 64 before shift and confounding were settings: size, JPEG quality (the last random number
# of a picture), and every eighth pixel of the middle row.
BEFORE = {
    ("HAM", "nv", 0, 0): ((64, 48), 90, "c67b91e6829ae8879bad4a45a6413bf595b2f69bbaeb8fac"),
    ("HAM", "mel", 3, 1): ((64, 48), 91, "a28688b2959cb7999e5f30228f5f52c7a7abcaa5a9cfabb2"),
    ("DMF", "bcc", 1, 0): ((58, 48), 95, "ce6d61d57166c13c3dc64040cf5551e38876e88a79"),
    ("D7P", "bkl", 2, 0): ((74, 49), 81, "8b4a3f8b3f387b463a8e473c6c3427964f44975245975146964a40"),
    ("D7P", "bkl", 2, 1): ((74, 49), 61, "e4664cfb7158f49575b84524e1704cc84826f86e51ff7a5bf17153"),
    ("MSK", "mel", 5, 0): ((80, 60), 81, "c39e92d6b7abcfada29d6f5e6538274f29214f2418bb9f94ad8e85997a71"),
    ("PH2", "nv", 4, 0): ((70, 53), 86, "9d6441a46b465112013b0f045014034c1203965c3b925c3c825335"),
    ("SON", "nv", 0, 0): ((80, 60), 81, "b48666b78868b78466b0765b723d2e744030ae8061b18464ab7c5fa7755b"),
    ("UDA", "mel", 1, 0): ((80, 60), 87, "fd8c6fb74929670e00802e1e8f38278e35268a220a7c1b04861f08d36042"),
}


def pixels(picture: Picture, **settings: float) -> np.ndarray:
    return np.asarray(render(picture, 0, 64, **settings)[0])


@pytest.mark.parametrize("settings", [{}, {"shift": 1, "confounding": 0}], ids=["omitted", "given"])
@pytest.mark.parametrize("picture", BEFORE, ids=lambda picture: "-".join(map(str, picture)))
def test_the_defaults_draw_what_they_always_drew(picture, settings):
    size, quality, row = BEFORE[picture]
    image, drawn_quality = render(Picture(*picture), 7, 64, **settings)
    assert (image.size, drawn_quality) == (size, quality)
    middle = np.asarray(image)[size[1] // 2, 4::8]
    expected = np.frombuffer(bytes.fromhex(row), np.uint8).reshape(-1, 3)
    # Processors may round exp differently by one grey level.
    assert np.abs(middle.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("style", ALL_STYLES)
def test_a_shift_of_one_is_the_style_itself_and_zero_is_hams(style):
    assert shifted(style, 1) == style
    assert shifted(style, 0) == HAM


@pytest.mark.parametrize("shift", [0, 0.3, 1.7, 2, 50])
def test_ham_is_the_same_at_any_shift(shift):
    assert shifted(HAM, shift) == HAM
    picture = Picture("HAM", "mel", 0, 0)
    assert np.array_equal(pixels(picture, shift=shift), pixels(picture))


def test_styles_are_interpolated_and_extrapolated():
    """Expected values by hand, from HAM's and those of Derm7pt's clinical and dermoscopic views, SONIC and PH2."""
    half = shifted(STYLES["D7P"][0], 0.5)
    assert half.lesion == pytest.approx((0.13, 0.24))
    assert half.frame == pytest.approx((1.075, 0.76))
    assert half.gain == pytest.approx((1.04, 0.955, 0.92))
    assert half.quality == pytest.approx((72.5, 90))
    assert half.glare == pytest.approx(0.15)
    assert half.bubbles == pytest.approx(0.05)
    double = shifted(STYLES["D7P"][1], 2)
    assert double.melanin == pytest.approx((0.28, 0.10))
    assert double.exposure == pytest.approx((0.7, 0.98))
    assert double.noise == pytest.approx(0.032)
    assert double.bubbles == pytest.approx(0.5)
    # The frame stays that of the domain; probabilities and ranges end at their bounds.
    assert double.frame == STYLES["D7P"][1].frame
    assert double.ruler == 0
    assert shifted(STYLES["SON"][0], 2).stickers == 1
    assert shifted(STYLES["PH2"][0], 2).vignette == (0.8, 1)
    assert shifted(STYLES["DMF"][0], 2).vignette == (0, 0)


def test_a_range_whose_ends_cross_is_put_in_order():
    """HAM's contrast is 0.9 to 1.15, so five times the distance to 0.85 to 1.0 leads to 0.65 and 0.4."""
    assert shifted(replace(HAM, contrast=(0.85, 1.0)), 5).contrast == pytest.approx((0.4, 0.65))


@pytest.mark.parametrize("shift", [0.5, 1, 2, 4, 1e6])
@pytest.mark.parametrize("style", ALL_STYLES)
def test_every_value_stays_meaningful(style, shift):
    values = asdict(shifted(style, shift))
    for name in PROBABILITIES:
        assert 0 <= values[name] <= 1, name
    for name in ("lesion", "exposure", "contrast", "saturation", "vignette", "blur", "quality"):
        low, high = values[name]
        assert 0 <= low <= high, name
    assert values["quality"][0] >= 1
    assert values["quality"][1] <= 100
    assert values["lesion"][0] > 0.05
    assert values["lesion"][1] <= 0.5
    assert values["vignette"][1] <= 1
    assert min(*values["gain"], *values["frame"]) > 0
    assert min(*values["melanin"], *values["blood"], values["noise"], values["glare"], values["hair"]) >= 0


@pytest.mark.parametrize("domain", DOMAINS)
def test_pictures_far_from_ham_still_show_a_lesion(domain):
    """Between the middle and its surroundings, the mean colours differ by at least a few grey levels."""
    for view in (0, 1):
        contrasts = []
        for lesion in range(8):
            image = pixels(Picture(domain, "nv", lesion, view), shift=4).astype(float)
            height, width = image.shape[:2]
            middle = image[height // 2 - 3 : height // 2 + 3, width // 2 - 3 : width // 2 + 3].mean(axis=(0, 1))
            contrasts.append(np.abs(middle - np.median(image, axis=(0, 1))).max())
        assert np.median(contrasts) > 5, view


def test_domains_look_the_same_without_a_shift_and_lie_further_apart_with_a_larger_one():
    """Welch's t-test of the mean colours of nevi finds no difference at 0, and larger ones at 2 than at 1."""

    def colours(domain: str, shift: float) -> np.ndarray:
        return np.array([pixels(Picture(domain, "nv", number, 0), shift=shift).mean((0, 1)) for number in range(40)])

    ham = colours("HAM", 1)
    distance = {}
    for shift in (0, 1, 2):
        others = {domain: colours(domain, shift) for domain in DOMAINS[1:]}
        distance[shift] = {domain: np.linalg.norm((ham - other).mean(0)) for domain, other in others.items()}
        if shift == 0:
            for domain, other in others.items():
                assert stats.ttest_ind(ham, other, equal_var=False).pvalue.min() > 0.01, domain
    for domain in DOMAINS[1:]:
        assert distance[0][domain] < distance[1][domain] < distance[2][domain], domain


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_full_confounding_gives_each_class_one_artefact_of_its_own(domain):
    shown = []
    for label in CLASSES:
        style = confounded(STYLES[domain][0], domain, label, 1)
        assert {getattr(style, name) for name in PROBABILITIES} == {0, 1}
        shown += [name for name in PROBABILITIES if getattr(style, name) == 1]
    assert len(shown) == len(CLASSES) == len(set(shown))


def test_an_artefact_indicates_another_class_in_every_domain():
    for label in CLASSES:
        assert len({artefact(domain, label) for domain in DOMAINS}) == len(DOMAINS), label


def test_the_artefacts_are_those_of_the_documentation():
    """Its table has an empty cell where the domain lacks the class."""
    names = {
        "hair": "hairy", "ruler": "ruler", "gel bubbles": "bubbles", "cyan colour cast": "cast", "ink": "ink",
        "sticker": "stickers", "round black mask": "aperture",
    }  # fmt: skip
    page = Path(__file__).parents[2] / "docs" / "data-formats.md"
    lines = page.read_text(encoding="utf-8").partition("| artefact |")[2].splitlines()
    table = {cells[0]: cells[1:] for line in lines[2:9] for cells in [[cell.strip() for cell in line.split("|")[1:-1]]]}
    assert set(table) == set(names)
    for name, cells in table.items():
        for domain, cell in zip(DOMAINS, cells, strict=True):
            if cell:
                assert artefact(domain, cell.strip("`")) == names[name], (name, domain)
    # HAM and DMF have 7 classes, D7P 6, MSK 4, PH2 2, SON 1, UDA 2.
    assert sum(bool(cell) for cells in table.values() for cell in cells) == 7 + 7 + 6 + 4 + 2 + 1 + 2


def artefact(domain: str, label: str) -> str:
    style = confounded(STYLES[domain][0], domain, label, 1)
    (name,) = (name for name in PROBABILITIES if getattr(style, name) == 1)
    return name


@pytest.mark.parametrize("name", [name for name in PROBABILITIES if name != "cast"])
def test_an_artefact_is_as_frequent_as_the_style_says(name):
    """On a grey scene nothing else changes a pixel."""
    scene = np.full((3, 48, 64), 0.5, np.float32)
    none = replace(HAM, hair=20.0, **dict.fromkeys(PROBABILITIES, 0.0))
    for probability, expected in ((0, {0}), (0.3, range(5, 26)), (1, {50})):
        style = replace(none, **{name: probability})
        drawn = [add_artefacts(scene, style, np.random.default_rng(seed)) for seed in range(50)]
        assert sum(not np.array_equal(image, scene) for image in drawn) in expected, probability


def test_a_partial_confounding_interpolates_the_probabilities():
    """MSK has rulers in 40 % and ink in 20 % of its images; ink accompanies its melanomas."""
    style = confounded(STYLES["MSK"][0], "MSK", "mel", 0.25)
    assert style.ink == pytest.approx(0.75 * 0.2 + 0.25)
    assert style.ruler == pytest.approx(0.75 * 0.4)
    assert style.hairy == pytest.approx(0.75 * 0.5)
    untouched = set(asdict(style)) - set(PROBABILITIES)
    assert {name: getattr(style, name) for name in untouched} == {
        name: getattr(STYLES["MSK"][0], name) for name in untouched
    }


def test_hair_shows_where_it_tells_the_class_even_if_the_domain_has_none():
    bald = replace(HAM, hair=0.0)
    assert confounded(bald, "HAM", "nv", 1).hair >= 10
    assert confounded(bald, "HAM", "mel", 1).hair == 0


@pytest.mark.parametrize(("confounding", "home", "abroad"), [(0, (0.05, 0.3), (0.05, 0.3)), (1, (0.75, 1), (0, 0.1))])
def test_a_shortcut_serves_at_home_and_misleads_abroad(confounding, home, abroad):
    """A forest that sees only the surroundings of HAM's lesions; by chance it would be right in 14 %."""

    def examples(domain: str, numbers: range) -> tuple[np.ndarray, np.ndarray]:
        pictures = [Picture(domain, label, number, 0) for label in CLASSES for number in numbers]
        seen = [surroundings(pixels(picture, shift=0, confounding=confounding)) for picture in pictures]
        return np.array(seen), np.arange(len(CLASSES)).repeat(len(numbers))

    forest = RandomForestClassifier(200, random_state=0).fit(*examples("HAM", range(30)))
    assert home[0] <= forest.score(*examples("HAM", range(30, 45))) <= home[1]
    for domain in ("MSK", "UDA"):
        assert abroad[0] <= forest.score(*examples(domain, range(15))) <= abroad[1], domain


def surroundings(image: np.ndarray) -> np.ndarray:
    """Describe what surrounds the lesion: corners, colours, thin dark lines, purple, the colour cast."""
    height, width = image.shape[:2]
    values = image.astype(float)
    grey = values.mean(axis=2)
    ends = (slice(4), slice(-4, None))
    corners = [grey[rows, columns].mean() for rows in ends for columns in ends]
    ring = np.ones((height, width), bool)
    ring[height // 4 : -height // 4, width // 4 : -width // 4] = False
    skin = np.median(values[ring], axis=0)
    away = values[ring] - skin
    steps = np.abs(np.diff(grey, axis=1))[:, :-1][ring[:, 2:]]
    purple = (away[:, 2] - away[:, 1]).max()
    rows = np.abs(np.diff(grey, axis=1)).mean(axis=1)
    extremes = np.quantile(away, (0.01, 0.99), axis=0).ravel()
    ruler = rows[: height // 4].max(), rows[-height // 4 :].max()
    spread = steps.mean(), np.quantile(steps, 0.98), away.std()
    return np.array([min(corners), max(corners), *(skin / skin.sum()), *extremes, purple, *ruler, *spread])


def test_pictures_depend_on_the_settings_but_not_on_each_other(tmp_path):
    """A picture in the folder is the one that its domain, class and number give by themselves."""
    tiny = {"scale": 1e-9, "minimum": 10, "width": 64, "progress": False}
    manifest = render_collections(tmp_path, shift=1.5, confounding=0.5, **tiny)
    path = next(path for path in manifest.paths if Path(path).name == "synthetic_UDA_mel_00003.jpg")
    expected, quality = render(Picture("UDA", "mel", 3, 0), 0, 64, shift=1.5, confounding=0.5)
    expected.save(tmp_path / "expected.jpg", quality=quality)
    with Image.open(path) as written, Image.open(tmp_path / "expected.jpg") as alone:
        assert np.array_equal(np.asarray(written), np.asarray(alone))
    plain, _ = render(Picture("UDA", "mel", 3, 0), 0, 64)
    assert not np.array_equal(np.asarray(plain), np.asarray(expected))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"shift": -0.1}, "shift"),
        ({"shift": float("nan")}, "shift"),
        ({"shift": float("inf")}, "shift"),
        ({"confounding": -0.1}, "confounding"),
        ({"confounding": 1.1}, "confounding"),
        ({"confounding": float("nan")}, "confounding"),
    ],
)
def test_invalid_settings_are_reported_before_anything_is_written(tmp_path, changes, name):
    with pytest.raises(InputError, match=name):
        render_collections(tmp_path / "out", progress=False, **changes)
    assert not (tmp_path / "out").exists()


def written_settings(folder: Path, text: str) -> Path:
    """Make a folder that contains nothing but a settings file."""
    folder.mkdir()
    (folder / "rendering.json").write_text(text)
    return folder


def test_the_settings_are_recorded_and_not_mixed(tmp_path):
    tiny = {"scale": 1e-9, "minimum": 10, "width": 64, "progress": False}
    out = tmp_path / "out"
    render_collections(out, shift=2, confounding=0.5, **tiny)
    recorded = json.loads((out / "rendering.json").read_text())
    assert recorded == {"version": 1, "seed": 0, "width": 64, "shift": 2.0, "confounding": 0.5}
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    for other in ({"shift": 2}, {"shift": 1, "confounding": 0.5}, {}):
        with pytest.raises(InputError, match="other settings"):
            render_collections(out, **other, **tiny)
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before
    render_collections(out, shift=2.0, confounding=0.5, **tiny)


def test_a_folder_without_the_new_settings_has_the_defaults(tmp_path):
    tiny = {"scale": 1e-9, "minimum": 10, "width": 64, "progress": False}
    old = written_settings(tmp_path / "old", '{"version": 1, "seed": 0, "width": 64}\n')
    for other in ({"shift": 0}, {"confounding": 1}):
        with pytest.raises(InputError, match="other settings"):
            render_collections(old, **other, **tiny)
    assert [path.name for path in old.iterdir()] == ["rendering.json"]
    render_collections(old, **tiny)
    assert (old / "manifest.csv").exists()


@pytest.mark.parametrize("text", ["", "{", "[1, 64]", "null", '{"version": 1, "seed": 0, "width": 64, "zoom": 1}'])
def test_an_unknown_settings_file_counts_as_other_settings(tmp_path, text):
    folder = written_settings(tmp_path / "out", text)
    with pytest.raises(InputError, match="other settings"):
        render_collections(folder, width=64, progress=False)
    assert (folder / "rendering.json").read_text() == text


def test_every_field_of_a_style_is_moved_by_the_shift():
    """Halfway to a style with larger values, every field that differs from HAM's differs from both."""
    other = Style(**{name: double(value) for name, value in asdict(HAM).items()})
    half = shifted(other, 0.5)
    for name, value in asdict(other).items():
        if value != getattr(HAM, name):
            assert getattr(half, name) not in (value, getattr(HAM, name)), name


def double(value: float | tuple[float, ...]) -> float | tuple[float, ...]:
    return tuple(1.2 * number for number in value) if isinstance(value, tuple) else 1.2 * value
