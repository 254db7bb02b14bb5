"""Fallback tags, which stay true by what the registry knows; spec "Referrers Tag Schema"."""

import asyncio

import pytest

from tests.support import (
    EMPTY,
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
)

SBOM, SIGNATURE = "application/vnd.example.sbom", "application/vnd.example.signature"


def fallback(digest: str) -> str:
    """The fallback tag of a subject."""
    algorithm, _, encoded = digest.partition(":")
    return f"{algorithm}-{encoded[:64]}"


async def listed(repository: Repository, subject: Json) -> list[str]:
    """The digests under the fallback tag; the answer must be what its digest says."""
    response = await repository.get(f"manifests/{fallback(subject['digest'])}")
    assert response.status_code == 200
    assert response.headers["content-type"] == OCI_INDEX
    assert response.headers["docker-content-digest"] == digest_of(response.content)
    by_digest = await repository.get(f"manifests/{response.headers['docker-content-digest']}")
    assert by_digest.content == response.content
    return [each["digest"] for each in response.json()["manifests"]]


@pytest.fixture
async def subject(repository: Repository) -> Json:
    await repository.push_blob(EMPTY)
    return await repository.push_image("latest")


async def test_no_fallback_tag_by_itself(repository: Repository, subject: Json) -> None:
    """A client that trusts the referrers API causes no tag."""
    await repository.push_artifact(subject, SBOM)
    assert await repository.tags() == ["latest"]


async def test_kept_as_pushed_if_complete(repository: Repository, subject: Json) -> None:
    """A list that has all that the registry knows stays the bytes that were pushed."""
    referrer = await repository.push_artifact(subject, SBOM)
    pushed = index([{**referrer, "artifactType": SBOM}])
    digest = await repository.push(pushed, fallback(subject["digest"]))
    assert await listed(repository, subject) == [referrer["digest"]]
    assert (await repository.get(f"manifests/{fallback(subject['digest'])}")).content == encode(pushed)
    assert digest == digest_of(encode(pushed))


async def test_merged(repository: Repository, subject: Json) -> None:
    """A list that lacks a known referrer is served with it, complete as the referrers API has it."""
    first = await repository.push_artifact(subject, SBOM, annotations={"a": "b"})
    second = await repository.push_artifact(subject, SIGNATURE)
    pushed = index([{**second, "artifactType": SIGNATURE}], annotations={"kept": "yes"}, future=1)
    response = await repository.put(pushed, fallback(subject["digest"]))
    assert response.headers["docker-content-digest"] == digest_of(encode(pushed))
    assert sorted(await listed(repository, subject)) == sorted([first["digest"], second["digest"]])
    merged = (await repository.get(f"manifests/{fallback(subject['digest'])}")).json()
    assert (merged["annotations"], merged["future"]) == ({"kept": "yes"}, 1)
    by_digest = {each["digest"]: each for each in merged["manifests"]}
    assert by_digest == {each["digest"]: each for each in await repository.referrers(subject["digest"])}


async def test_pushed_bytes_stay_by_their_digest(repository: Repository, subject: Json) -> None:
    """The index that a client pushed is pulled by its digest as it was, though the tag has moved on."""
    await repository.push_artifact(subject, SBOM)
    pushed = encode(index())
    digest = await repository.push(pushed, fallback(subject["digest"]), media_type=OCI_INDEX)
    assert (await repository.get(f"manifests/{digest}")).content == pushed
    tagged = await repository.head(f"manifests/{fallback(subject['digest'])}")
    assert tagged.headers["docker-content-digest"] != digest


async def test_later_referrers_join(repository: Repository, subject: Json) -> None:
    """A referrer that comes after the list is in it at once."""
    first = await repository.push_artifact(subject, SBOM)
    await repository.push(index([first]), fallback(subject["digest"]))
    second = await repository.push_artifact(subject, SIGNATURE)
    assert await listed(repository, subject) == [first["digest"], second["digest"]]


async def test_racing_writers_lose_nothing(repository: Repository, subject: Json) -> None:
    """Clients that read, change and write the list at once, as without the API, lose no entry."""
    tag = fallback(subject["digest"])

    async def attach(n: int) -> str:
        document = artifact(SBOM, subject, annotations={"n": str(n)})
        await repository.push(document)
        await asyncio.sleep(0)
        response = await repository.get(f"manifests/{tag}")
        before = response.json()["manifests"] if response.status_code == 200 else []
        await asyncio.sleep(0)
        own = descriptor(encode(document), OCI_MANIFEST, artifactType=SBOM)
        kept = [each for each in before if each["digest"] != own["digest"]]
        await repository.push(index([*kept, own]), tag)
        return str(own["digest"])

    pushed = await asyncio.gather(*(attach(n) for n in range(20)))
    found = await listed(repository, subject)
    assert len(found) == 20
    assert set(found) == set(pushed)


async def test_deleted_referrer_leaves_the_list(repository: Repository, subject: Json) -> None:
    """Deleting a referrer takes it from the list, though the list mentions it; the others stay."""
    first = await repository.push_artifact(subject, SBOM)
    second = await repository.push_artifact(subject, SIGNATURE)
    await repository.push(index([first, second]), fallback(subject["digest"]))
    assert (await repository.delete(f"manifests/{first['digest']}")).status_code == 202
    assert await listed(repository, subject) == [second["digest"]]


async def test_list_mentions_without_needing(repository: Repository, subject: Json) -> None:
    """A fallback tag may list what is not there yet or no more; any other index may not."""
    missing = descriptor(b"missing", OCI_MANIFEST)
    await repository.push(index([missing]), fallback(subject["digest"]))
    assert await listed(repository, subject) == [missing["digest"]]
    errors(await repository.put(index([missing]), "other"), 404, "MANIFEST_BLOB_UNKNOWN")
    assert await repository.referrers(subject["digest"]) == []


async def test_fallback_tag_among_others(repository: Repository, subject: Json) -> None:
    """An index that gets another tag beside the fallback tag needs what it lists, as any index does."""
    missing = descriptor(b"missing", OCI_MANIFEST)
    tags = [("tag", fallback(subject["digest"])), ("tag", "other")]
    response = await repository.put(index([missing]), params=tags)
    errors(response, 404, "MANIFEST_BLOB_UNKNOWN")
    assert await repository.tags() == ["latest"]


async def test_api_includes_what_the_tag_lists(repository: Repository, subject: Json) -> None:
    """A manifest without subject that a fallback tag lists is a referrer; one with another subject is not."""
    await repository.push(artifact(SBOM))
    old = descriptor(encode(artifact(SBOM)), OCI_MANIFEST)
    stranger = await repository.push_artifact(descriptor(b"other", OCI_MANIFEST), SIGNATURE)
    await repository.push(index([old, stranger]), fallback(subject["digest"]))
    found = await repository.referrers(subject["digest"])
    assert found == [{**old, "artifactType": SBOM}]
    assert await repository.referrers(subject["digest"], f"?artifactType={SIGNATURE}") == []
    assert (await repository.delete(f"manifests/{fallback(subject['digest'])}")).status_code == 202
    assert await repository.referrers(subject["digest"]) == []


async def test_listed_twice(repository: Repository, subject: Json) -> None:
    """A manifest that the list has twice, under two types, is one referrer."""
    await repository.push(artifact(SBOM))
    old = descriptor(encode(artifact(SBOM)), OCI_MANIFEST)
    await repository.push(index([old, {**old, "mediaType": "application/x"}]), fallback(subject["digest"]))
    assert [each["digest"] for each in await repository.referrers(subject["digest"])] == [old["digest"]]


@pytest.mark.parametrize("algorithm", ["sha512", "blake3"])
async def test_other_algorithms(repository: Repository, algorithm: str) -> None:
    """The tag of a long digest is cut to 64 characters and works the same."""
    await repository.push_image()
    content = encode(image(annotations={"a": "b"}))
    subject = descriptor(content, OCI_MANIFEST, algorithm)
    await repository.push(content, subject["digest"])
    first = await repository.push_artifact(subject, SBOM)
    await repository.push(index(), fallback(subject["digest"]))
    second = await repository.push_artifact(subject, SIGNATURE)
    assert await listed(repository, subject) == [first["digest"], second["digest"]]
    await repository.delete(f"manifests/{first['digest']}")
    assert await listed(repository, subject) == [second["digest"]]


async def test_subjects_that_share_a_cut_tag(repository: Repository) -> None:
    """Two sha512 subjects whose digests begin alike share the tag: the list has the referrers of both."""
    head = "a" * 64
    subjects = [descriptor(b"x", OCI_MANIFEST) | {"digest": f"sha512:{head}{tail * 64}"} for tail in "bc"]
    pushed = [await repository.push_artifact(each, SBOM) for each in subjects]
    await repository.push(index(), f"sha512-{head}")
    assert sorted(await listed(repository, subjects[0])) == sorted(each["digest"] for each in pushed)
    for subject, referrer in zip(subjects, pushed, strict=True):
        assert [each["digest"] for each in await repository.referrers(subject["digest"])] == [referrer["digest"]]


async def test_another_manifest_under_the_tag(repository: Repository, subject: Json) -> None:
    """What is no OCI index under such a tag is left alone."""
    await repository.push_artifact(subject, SBOM)
    tag = fallback(subject["digest"])
    for document in (image(), {"schemaVersion": 2, "manifests": []}):
        media_type = (
            OCI_MANIFEST if "layers" in document else "application/vnd.docker.distribution.manifest.list.v2+json"
        )
        content = encode(document)
        await repository.push(content, tag, media_type=media_type)
        assert (await repository.get(f"manifests/{tag}")).content == content
    await repository.push_artifact(subject, SIGNATURE)
    assert (await repository.head(f"manifests/{tag}")).headers["docker-content-digest"] == digest_of(content)


@pytest.mark.parametrize("suffix", [".sig", ".att", "-x"])
async def test_other_tags_of_a_digest(repository: Repository, subject: Json, suffix: str) -> None:
    """Tags that only begin like a fallback tag (cosign's) are tags as all others."""
    await repository.push_artifact(subject, SBOM)
    tag = fallback(subject["digest"]) + suffix
    content = encode(index())
    await repository.push(content, tag, media_type=OCI_INDEX)
    assert (await repository.get(f"manifests/{tag}")).content == content


@pytest.mark.parametrize(
    "odd",
    [
        "1" + "0" * 400,
        "0.1000000000000000055511151231257827021181583404541015625",
        "1e400",
        "-1e400",
        '"\\ud800"',
        '{"\\ud800": 1}',
    ],
)
async def test_odd_values_in_a_merged_list(repository: Repository, subject: Json, odd: str) -> None:
    """Whatever JSON a client's unknown fields hold, its list is merged or refused; the server does not break."""
    await repository.push_artifact(subject, SBOM)
    content = encode(index())[:-1] + f', "future": {odd}}}'.encode()
    response = await repository.put(content, fallback(subject["digest"]), OCI_INDEX)
    assert response.status_code in (201, 400)
    if response.status_code == 201:
        assert len(await listed(repository, subject)) == 1


async def test_condition_on_a_fallback_tag(repository: Repository, subject: Json) -> None:
    """If-Match on the tag compares with what is served, so that careful clients go on as they do."""
    first = await repository.push_artifact(subject, SBOM)
    tag = fallback(subject["digest"])
    await repository.push(index(), tag)
    etag = (await repository.head(f"manifests/{tag}")).headers["etag"]
    stale = await repository.put(index([first]), tag, headers={"if-match": f'"{digest_of(encode(index()))}"'})
    errors(stale, 412, "DENIED")
    assert (await repository.put(index([first]), tag, headers={"if-match": etag})).status_code == 201
