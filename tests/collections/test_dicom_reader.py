"""``prepare`` on DICOM: patient and study as pseudonyms, institution and device, and nothing else of the person."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from fastccsa.cli import main
from fastccsa.collections import Manifest, prepare
from fastccsa.collections.pseudonym_key import default_key_file, read_key
from fastccsa.system.errors import InputError

pydicom = pytest.importorskip("pydicom", minversion="3")

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid  # noqa: E402

IDENTIFYING = {
    "PatientName": "Doe^Jane",
    "PatientBirthDate": "19700131",
    "PatientAddress": "1 Secret Street",
    "OtherPatientIDs": "SECRET-OTHER",
    "AccessionNumber": "SECRET-ACC",
    "ReferringPhysicianName": "House^Gregory",
    "StudyDate": "20200229",
    "DeviceSerialNumber": "SECRET-SERIAL",
    "StationName": "SECRET-STATION",
    "InstitutionAddress": "2 Secret Square",
}


@pytest.fixture(autouse=True)
def _own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def write(path: Path, patient: str = "", study: str = "", **attributes: Any) -> None:
    """Write a DICOM file with a picture that depends on its name."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = SecondaryCaptureImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = generate_uid()
    made.PatientID, made.StudyInstanceUID = patient, study
    seed = int.from_bytes(path.name.encode(), "little") % 2**32
    values = np.random.default_rng(seed).integers(0, 256, (8, 8)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    made.Rows, made.Columns, made.SamplesPerPixel, made.PhotometricInterpretation = 64, 64, 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    made.PixelData = values.tobytes()
    for name, value in (IDENTIFYING | attributes).items():
        setattr(made, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Twelve patients with two scans each, in folders domain/class; the patients of each class are others."""
    for patient in range(12):
        for scan in range(2):
            path = tmp_path / "scans" / "S" / "ab"[patient % 2] / f"p{patient}s{scan}.dcm"
            write(path, f"MRN-{patient:04}", f"1.2.{patient}", InstitutionName="St. Mary", Manufacturer="ACME")
    return tmp_path / "scans"


def prepared(folder: Path, out: Path, **options: Any) -> pd.DataFrame:
    manifest, _ = prepare([("own", "folders", folder)], out, **options)
    return manifest.table


def test_a_folder_of_dicom_works_like_a_folder_of_images(tmp_path: Path, scans: Path) -> None:
    out = tmp_path / "m.csv"
    done = CliRunner().invoke(main, ["prepare", "--folders", str(scans), "--out", str(out)])
    assert done.exit_code == 0, done.output
    table = Manifest.read(out).table
    assert len(table) == 24
    assert table["patient"].nunique() == table["study"].nunique() == table["group"].nunique() == 12
    assert table.groupby("patient")["split"].nunique().max() == 1
    assert set(table["institution"]) == {"St. Mary"}
    assert set(table["device"]) == {"ACME"}
    assert "frame" not in table.columns


def test_identifying_fields_leave_no_trace(tmp_path: Path, scans: Path) -> None:
    write(scans / "S" / "a" / "cut.dcm", "MRN-0099")
    content = (scans / "S" / "a" / "cut.dcm").read_bytes()
    (scans / "S" / "a" / "cut.dcm").write_bytes(content[:-900])
    before = {path.name for path in tmp_path.rglob("*")}
    done = CliRunner().invoke(main, ["prepare", "--folders", str(scans), "--out", str(tmp_path / "m.csv")])
    assert "image file cannot be decoded (1: cut.dcm)" in done.stdout
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name not in before]
    assert {path.name for path in written} >= {"m.csv", "m.prepare.json", ".fastccsa-fingerprints.csv"}
    text = done.output + "".join(path.read_text() for path in written)
    # The identifiers too: a study number ends up in no file, nor do parts of it.
    for secret in [*IDENTIFYING.values(), "MRN-", "1.2.3", "Doe", "Jane", "SECRET", "Secret", "House"]:
        assert secret not in text, secret


def test_only_named_attributes_are_read(scans: Path) -> None:
    from fastccsa.collections.readers.dicom import _TAGS, _read_header

    header = _read_header(str(next(scans.rglob("*.dcm"))))
    assert header is not None
    assert {element.keyword for element in header} <= {*_TAGS, "SpecificCharacterSet"}


def test_pseudonyms_are_stable_with_the_same_key_and_only_then(tmp_path: Path, scans: Path) -> None:
    first = prepared(scans, tmp_path / "1.csv")
    again = prepared(scans, tmp_path / "2.csv")
    assert first[["patient", "study"]].equals(again[["patient", "study"]])
    assert all(re.fullmatch(r"patient-[0-9a-f]{16}", name) for name in first["patient"])
    assert all(re.fullmatch(r"study-[0-9a-f]{16}", name) for name in first["study"])
    other = tmp_path / "key"
    other.write_bytes(b"another key, which is long enough")
    changed = prepared(scans, tmp_path / "3.csv", pseudonym_key=other)
    assert not set(changed["patient"]) & set(first["patient"])
    assert not set(changed["study"]) & set(first["study"])
    assert changed["group"].tolist() == first["group"].tolist()


def test_pseudonyms_are_hmacs() -> None:
    import hashlib
    import hmac

    from fastccsa.collections.readers.dicom import _Pseudonyms

    default_key_file().parent.mkdir(parents=True)
    default_key_file().write_bytes(b"k" * 40 + b"\n")
    expected = hmac.new(b"k" * 40, b"patient\0MRN 1", hashlib.sha256).hexdigest()[:16]
    assert _Pseudonyms(None)("patient", "MRN 1") == f"patient-{expected}"


def test_the_users_key_is_made_once_and_is_private() -> None:
    key = read_key()
    assert read_key() == key
    assert len(bytes.fromhex(key.decode())) == 32
    assert stat.S_IMODE(default_key_file().stat().st_mode) == 0o600
    assert [path.name for path in default_key_file().parent.iterdir()] == ["pseudonyms.key"]


def test_keys_that_cannot_be_used_are_named(tmp_path: Path, scans: Path) -> None:
    short = tmp_path / "short"
    short.write_text("secret\n")
    with pytest.raises(InputError, match=r"short: a key has at least 16 bytes, and this one has 6"):
        prepared(scans, tmp_path / "m.csv", pseudonym_key=short)
    with pytest.raises(InputError, match=r"absent: .*No such file or directory.*--pseudonym-key"):
        prepared(scans, tmp_path / "m.csv", pseudonym_key=tmp_path / "absent")
    default_key_file().parent.parent.mkdir(parents=True)
    default_key_file().parent.write_text("a file where the folder should be")
    with pytest.raises(InputError, match=r"pseudonyms.key: the key .* cannot be read or made"):
        prepared(scans, tmp_path / "m.csv")
    assert not (tmp_path / "m.csv").exists()


def test_images_without_dicom_need_no_key(tmp_path: Path, write_image: Any) -> None:
    for n in range(10):
        write_image(tmp_path / "own" / "S" / "ab"[n % 2] / f"{n}.png")
    table = prepared(tmp_path / "own", tmp_path / "m.csv")
    assert list(table.columns) == ["image", "label", "domain", "group", "split"]
    assert not default_key_file().exists()


def test_a_study_is_never_in_two_splits_where_no_patient_is_known(tmp_path: Path) -> None:
    for study in range(8):
        for scan in range(3):
            path = tmp_path / "scans" / "S" / "ab"[study % 2] / f"{study}-{scan}.dcm"
            write(path, "ANONYMOUS" if scan else "", f"1.9.{study}")
    table = prepared(tmp_path / "scans", tmp_path / "m.csv")
    assert "patient" not in table.columns  # "anonymous" is nobody
    assert table["group"].nunique() == 8
    assert table.groupby("study")["split"].nunique().max() == 1


def test_a_patient_of_the_table_is_kept(tmp_path: Path, scans: Path) -> None:
    files = sorted(scans.rglob("*.dcm"))
    rows = [f"{path},{path.parent.name},{'Ann' if n == 0 else ''}" for n, path in enumerate(files)]
    (tmp_path / "own.csv").write_text("\n".join(["image,label,patient", *rows]) + "\n")
    manifest, _ = prepare([("S", "csv", tmp_path / "own.csv")], tmp_path / "m.csv")
    patients = manifest.table.set_index("image")["patient"]
    assert patients.iloc[0] == "S/Ann"
    assert patients.iloc[1:].str.match(r"patient-[0-9a-f]{16}$").all()


def test_institution_and_device(tmp_path: Path) -> None:
    folder = tmp_path / "scans" / "S"
    write(folder / "a" / "0.dcm", "0", Manufacturer="SIEMENS", ManufacturerModelName="Siemens Aera")
    write(folder / "a" / "1.dcm", "1", Manufacturer="GE", ManufacturerModelName="Optima\n\x07 XR", InstitutionName=" ")
    write(folder / "b" / "2.dcm", "2", ClinicalTrialSiteID="17", ManufacturerModelName="X")
    write(folder / "b" / "3.dcm", "3", InstitutionName="Hôpital", SpecificCharacterSet="ISO_IR 100")
    table = prepared(tmp_path / "scans", tmp_path / "m.csv")
    rows = {Path(row.image).stem: (row.institution, row.device) for row in table.itertuples()}
    assert rows == {"0": ("", "Siemens Aera"), "1": ("", "GE Optima XR"), "2": ("17", "X"), "3": ("Hôpital", "")}


def test_the_frame_that_is_shown_is_recorded(tmp_path: Path) -> None:
    for n in range(4):
        path = tmp_path / "scans" / "S" / "ab"[n % 2] / f"{n}.dcm"
        write(path, str(n))
        if n == 3:
            made = pydicom.dcmread(path)
            made.NumberOfFrames, made.PixelData = 3, made.PixelData * 3
            made.save_as(path)
    table = prepared(tmp_path / "scans", tmp_path / "m.csv")
    assert dict(zip(table["image"].str[-5:], table["frame"], strict=True))["3.dcm"] == "2 of 3"
    assert sorted(table["frame"]) == ["", "", "", "2 of 3"]


def test_files_without_an_ending_are_recognised(tmp_path: Path, scans: Path) -> None:
    for path in scans.rglob("*.dcm"):
        path.rename(path.with_suffix("" if "s0" in path.name else ".1.2.840"))
    (scans / "S" / "a" / "README").write_text("no image")
    manifest, report = prepare([("own", "folders", scans)], tmp_path / "m.csv")
    assert len(manifest) == 24
    assert report.left_out["own"] == [("not an image", "S/a/README")]


def test_a_missing_decoder_is_named_with_its_command(
    tmp_path: Path, scans: Path, write_image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for n in range(10):
        write_image(scans / "S" / "ab"[n % 2] / f"{n}.png")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    manifest, report = prepare([("own", "folders", scans)], tmp_path / "m.csv")
    assert len(manifest) == 10
    advice = "no decoder for DICOM is installed: pip install 'fastccsa[dicom]'"
    reasons = {reason for entries in report.left_out.values() for reason, _ in entries}
    assert reasons == {f"image of a kind that cannot be decoded here ({advice})"}
    assert f"({advice}) (24: p0s0.dcm, " in str(report)
