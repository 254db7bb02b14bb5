"""Listing referrers; spec "Listing Referrers", "Enabling the Referrers API", end-12a, end-12b."""

import json
from typing import Any

import pytest

from tests.support import (
    CONFIG,
    EMPTY,
    EMPTY_TYPE,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Json,
    Repository,
    artifact,
    descriptor,
    digest_of,
    encode,
    errors,
    image,
    index,
    next_url,
)
from tests.web.conftest import Opener

SBOM, SIGNATURE = "application/vnd.example.sbom", "application/vnd.example.signature"
NOWHERE = digest_of(b"nowhere")


def described(document: Json, media_type: str = OCI_MANIFEST, **more: Any) -> Json:
    """What the list must say of a document."""
    return descriptor(encode(document), media_type, **more)


async def test_form(repository: Repository) -> None:
    """The list is an OCI index of descriptors, with its Content-Type and without filters or Link."""
    subject = await repository.push_image("latest")
    referrer = await repository.push_artifact(subject, SBOM)
    response = await repository.get(f"referrers/{subject['digest']}")
    assert response.status_code == 200
    assert response.headers["content-type"] == OCI_INDEX
    assert "oci-filters-applied" not in response.headers
    assert "link" not in response.headers
    assert response.json() == {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [{**referrer, "artifactType": SBOM}],
    }
    head = await repository.head(f"referrers/{subject['digest']}")
    assert (head.headers, head.content) == (response.headers, b"")


async def test_none(repository: Repository) -> None:
    """An unknown subject, and even an unknown repository, has no referrers: an empty index, never 404."""
    empty = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    for digest in (NOWHERE, digest_of(b"x", "sha512"), digest_of(b"x", "blake3")):
        assert (await repository.get(f"referrers/{digest}")).json() == empty
    await repository.push_image("latest")
    assert (await repository.get(f"referrers/{NOWHERE}")).json() == empty
    assert (await repository.get(f"referrers/{NOWHERE}?artifactType=x/y")).json() == empty


@pytest.mark.parametrize("digest", ["x", "latest", "sha256:x", "sha256:", "md5:" + "a" * 32, "sha256:" + "A" * 64])
async def test_malformed_digest(repository: Repository, digest: str) -> None:
    """A digest of invalid syntax (or of an unsupported algorithm) is 400 DIGEST_INVALID."""
    errors(await repository.get(f"referrers/{digest}"), 400, "DIGEST_INVALID")


async def test_artifact_type(repository: Repository) -> None:
    """artifactType is the manifest's; of an image without one its config's type; of an index without one left out."""
    subject = await repository.push_image("latest")
    await repository.push_blob(EMPTY)
    notes = {"org.example.note": "kept"}
    plain = {key: value for key, value in artifact(subject=subject).items() if key != "artifactType"}
    bare = {key: value for key, value in plain.items() if key != "config"}
    expected = []
    cases: list[tuple[Json, str, Json]] = [
        (artifact(SBOM, subject, annotations=notes), OCI_MANIFEST, {"artifactType": SBOM, "annotations": notes}),
        (artifact("", subject), OCI_MANIFEST, {"artifactType": EMPTY_TYPE}),
        (plain, OCI_MANIFEST, {"artifactType": EMPTY_TYPE}),
        (bare, OCI_MANIFEST, {}),
        (image(subject=subject, annotations={}), OCI_MANIFEST, {"artifactType": OCI_CONFIG}),
        (index(subject=subject), OCI_INDEX, {}),
        (index(subject=subject, artifactType=""), OCI_INDEX, {}),
        (index(subject=subject, artifactType=SIGNATURE, annotations=notes), OCI_INDEX,
         {"artifactType": SIGNATURE, "annotations": notes}),
    ]  # fmt: skip
    for document, media_type, more in cases:
        await repository.push(document)
        expected.append(described(document, media_type, **more))
    found = await repository.referrers(subject["digest"])
    assert found == sorted(expected, key=lambda each: each["digest"])


async def test_subject_may_come_later(repository: Repository) -> None:
    """A referrer that was pushed before its subject is listed before and after the subject comes."""
    subject = described(image())
    referrer = await repository.push_artifact(subject, SBOM)
    assert [each["digest"] for each in await repository.referrers(subject["digest"])] == [referrer["digest"]]
    await repository.push_image("latest")
    assert [each["digest"] for each in await repository.referrers(subject["digest"])] == [referrer["digest"]]


async def test_index_as_subject(repository: Repository) -> None:
    """An index can be a subject as an image can, and a referrer can have referrers."""
    await repository.push(index(), "index")
    top = described(index(), OCI_INDEX)
    first = await repository.push_artifact(top, SBOM)
    second = await repository.push_artifact(first, SIGNATURE)
    assert [each["digest"] for each in await repository.referrers(top["digest"])] == [first["digest"]]
    assert [each["digest"] for each in await repository.referrers(first["digest"])] == [second["digest"]]


async def test_referrers_are_of_one_repository(repository: Repository) -> None:
    """A referrer in another repository is not listed."""
    subject = await repository.push_image("latest")
    other = Repository(repository.client, "other")
    await other.push_artifact(subject, SBOM)
    assert await repository.referrers(subject["digest"]) == []
    assert len(await other.referrers(subject["digest"])) == 1


@pytest.mark.parametrize("algorithm", ["sha512", "blake3"])
async def test_subject_of_another_algorithm(repository: Repository, algorithm: str) -> None:
    """A subject named by any registered digest has its referrers under that digest."""
    await repository.push_image()
    content = encode(image(annotations={"a": "b"}))
    digest = await repository.push(content, digest_of(content, algorithm))
    referrer = await repository.push_artifact(descriptor(content, OCI_MANIFEST, algorithm), SBOM)
    assert [each["digest"] for each in await repository.referrers(digest)] == [referrer["digest"]]
    assert await repository.referrers(digest_of(content)) == []


async def test_filter(repository: Repository) -> None:
    """artifactType filters, and OCI-Filters-Applied says so; a type that nothing has gives an empty index."""
    subject = await repository.push_image("latest")
    boms = [await repository.push_artifact(subject, SBOM, annotations={"n": str(n)}) for n in range(3)]
    signature = await repository.push_artifact(subject, SIGNATURE)
    for kind, expected in ((SBOM, boms), (SIGNATURE, [signature]), ("application/none", [])):
        response = await repository.get(f"referrers/{subject['digest']}", params={"artifactType": kind})
        assert response.headers["oci-filters-applied"] == "artifactType"
        found = {each["digest"] for each in response.json()["manifests"]}
        assert found == {each["digest"] for each in expected}
    response = await repository.get(f"referrers/{subject['digest']}?artifactType=")
    assert "oci-filters-applied" not in response.headers
    assert len(response.json()["manifests"]) == 4


async def test_filter_by_config_type(repository: Repository) -> None:
    """The filter compares what the list shows: the config's type where there is no artifactType."""
    subject = await repository.push_image("latest")
    await repository.push(image(subject=subject))
    found = await repository.referrers(subject["digest"], f"?artifactType={OCI_CONFIG.replace('+', '%2B')}")
    assert len(found) == 1


@pytest.mark.parametrize("query", ["?n=1", "?n=3", f"?n=2&artifactType={SBOM}", f"?artifactType={SBOM}", ""])
async def test_pages_through_link(opened: Opener, query: str) -> None:
    """Pages walked through Link are indexes that give all that match exactly once, with the filter on each."""
    repository = await opened(referrers_page=4)
    subject = await repository.push_image("latest")
    expected = set()
    for n in range(10):
        expected.add((await repository.push_artifact(subject, SBOM, annotations={"n": str(n)}))["digest"])
        other = await repository.push_artifact(subject, SIGNATURE, annotations={"n": str(n)})
        if "artifactType" not in query:
            expected.add(other["digest"])
    url, found, pages = repository.at(f"referrers/{subject['digest']}{query}"), [], 0
    while url:
        response = await repository.client.get(url)
        assert response.headers["content-type"] == OCI_INDEX
        assert response.headers.get("oci-filters-applied") == ("artifactType" if "artifactType" in query else None)
        found += [each["digest"] for each in response.json()["manifests"]]
        url, pages = next_url(response) or "", pages + 1
    assert len(found) == len(expected)
    assert set(found) == expected
    assert pages >= 3


@pytest.mark.parametrize("filling", ["x" * 1_500_000, "値" * 500_000], ids=["latin", "japanese"])
async def test_pages_of_large_annotations(repository: Repository, filling: str) -> None:
    """A page stays below the 4 MiB that clients take, however large the annotations; nothing is left out."""
    subject = await repository.push_image("latest")
    expected = set()
    for n in range(5):
        notes = {"n": str(n), "filling": filling}
        expected.add((await repository.push_artifact(subject, SBOM, annotations=notes))["digest"])
    url, found = repository.at(f"referrers/{subject['digest']}"), []
    while url:
        response = await repository.client.get(url)
        assert len(response.content) < 4 * 1024 * 1024
        found += [each["digest"] for each in response.json()["manifests"]]
        url = next_url(response) or ""
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("n", ["-1", "x"])
async def test_malformed_n(repository: Repository, n: str) -> None:
    """n that is no whole number is 400 UNSUPPORTED."""
    errors(await repository.get(f"referrers/{NOWHERE}?n={n}"), 400, "UNSUPPORTED")


async def test_zero(repository: Repository) -> None:
    """n=0 is an empty index without Link."""
    subject = await repository.push_image("latest")
    await repository.push_artifact(subject, SBOM)
    response = await repository.get(f"referrers/{subject['digest']}?n=0")
    assert (response.json()["manifests"], "link" in response.headers) == ([], False)


async def test_deleted_referrer_goes(repository: Repository) -> None:
    """A referrer that was deleted is listed no more, at once; so is none of a deleted subject's lost."""
    subject = await repository.push_image("latest")
    first = await repository.push_artifact(subject, SBOM)
    second = await repository.push_artifact(subject, SIGNATURE)
    assert (await repository.delete(f"manifests/{first['digest']}")).status_code == 202
    assert [each["digest"] for each in await repository.referrers(subject["digest"])] == [second["digest"]]
    assert (await repository.delete(f"manifests/{subject['digest']}")).status_code == 202
    assert [each["digest"] for each in await repository.referrers(subject["digest"])] == [second["digest"]]


async def test_many_annotations_are_kept(repository: Repository) -> None:
    """All annotations are in the descriptor, in any script."""
    subject = await repository.push_image("latest")
    notes = {f"org.example.{n}": value for n, value in enumerate(["", "Zoë", "日本語", '"quoted"\n', "\u2028", "🚢"])}
    await repository.push_artifact(subject, SBOM, annotations=notes)
    (found,) = await repository.referrers(subject["digest"])
    assert found["annotations"] == notes


async def test_manifest_without_config_has_no_type(repository: Repository) -> None:
    """An image without config and without artifactType has nothing that could be its type."""
    await repository.push_blob(CONFIG)
    subject = await repository.push_image("latest")
    document = {"schemaVersion": 2, "layers": [], "subject": subject}
    await repository.push(json.dumps(document).encode(), None)
    (found,) = await repository.referrers(subject["digest"])
    assert "artifactType" not in found
