"""Describe the prepared data of the recorded trainings in croissant.json, by Croissant 1.0.

Each file is a FileObject with its SHA-256, below its name in the archive. Files that are not packed
have the name that `make data` gives them in the unpacked archive, and the file that they were made
of is told where its address is known. Records are described where programs that read Croissant can
read them as the project does: rows of tables that are text, and images in a folder for each class.
Promises that nothing is made up: what neither the manifest of the data nor [tool.repro] says is not
there, so a file without a licence has none that is known.
"""

import json
import re
import time
from urllib.parse import quote

from repro.core.files import Json, JsonObject
from repro.core.layout import own_place
from repro.core.project import PYPROJECT
from repro.publishing.contents import Contents, content_bytes, content_digest, content_size
from repro.publishing.described_data import DataFile, DescribedData, data_of
from repro.publishing.table_columns import read_columns
from repro.results.stated import parse_stated

CROISSANT = "croissant.json"
_VERSION = "http://mlcommons.org/croissant/1.0"
_RESPONSIBLE_AI = "http://mlcommons.org/croissant/RAI/1.0"
# More files than this have their SHA-256 in the manifest alone, which is a FileObject itself.
MOST_FILES = 10_000

# What Croissant 1.0 says that each of its files begins with.
_TERMS = """citeAs column equivalentProperty extract field fileProperty fileObject fileSet format
includes isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated replace
samplingRate separator source subField transform"""
_CONTEXT: JsonObject = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS.split()},
}

# Python's own table depends on the machine. For what has no MIME type Croissant wants an address.
_ENCODINGS = {
    "bmp": "image/bmp",
    "csv": "text/csv",
    "gif": "image/gif",
    "gz": "application/gzip",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "json": "application/json",
    "jsonl": "application/jsonlines",
    "parquet": "application/x-parquet",
    "png": "image/png",
    "safetensors": "https://github.com/huggingface/safetensors",
    "tar": "application/x-tar",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "tsv": "text/tab-separated-values",
    "txt": "text/plain",
    "webp": "image/webp",
    "zip": "application/zip",
}
_TABLES = ("text/csv", "text/tab-separated-values")
_IMAGES = ("image/jpeg", "image/png")


def croissant(contents: Contents) -> dict[str, bytes]:
    """Return croissant.json, by its name in the archive."""
    data = data_of(contents)
    records = [node for each in data for node in _records(each)]
    responsible = parse_stated(content_bytes(contents.files[PYPROJECT]).decode()).responsible_ai
    dataset: JsonObject = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": f"Data of {contents.about.title}",
        "description": " ".join(_description(each) for each in data),
        "conformsTo": [_VERSION, _RESPONSIBLE_AI] if responsible else _VERSION,
        "distribution": [node for each in data for node in _distribution(contents, each)],
    }
    if contents.commit:  # without one the moment tells nothing
        dataset["datePublished"] = time.strftime("%Y-%m-%d", time.gmtime(contents.moment))
    if contents.about.repository:
        dataset["url"] = contents.about.repository
    if licences := sorted({text for each in data for text in each.texts("license")}):
        dataset["license"] = [_licence(text) for text in licences]
    if records:
        dataset["recordSet"] = records
    for name, value in responsible.items():
        dataset[f"rai:{name}"] = [*value] if isinstance(value, list) else value
    return {CROISSANT: f"{json.dumps(dataset, indent=1)}\n".encode()}


def _licence(text: str) -> str:
    """Return the address of a licence that SPDX knows; else what the manifest says."""
    is_name = re.fullmatch(r"(?!LicenseRef-)[A-Za-z0-9.+-]+", text)
    return f"https://spdx.org/licenses/{text}" if is_name else text


def _description(data: DescribedData) -> str:
    """Say what the data are, where they are from, and how many samples the parts have."""
    facts = []
    if isinstance(samples := data.manifest.get("samples"), int):
        facts.append(f"{samples} samples")
    facts += [f"from {source}" for source in data.texts("source")]
    if digests := data.texts("raw_sha256"):
        facts.append(f"SHA-256 of the raw data {', '.join(digests)}")
    for claim, sizes in data.splits.items():
        parts = ", ".join(f"{part} {size}" for part, size in sizes.items())
        facts.append(f"parts of {claim}: {parts}")
    if len(data.files) > MOST_FILES:
        facts.append(f"SHA-256 of each of the {len(data.files)} files in {data.manifest_name}")
    return f"{data.name}: {'; '.join(facts)}." if facts else f"{data.name}."


def _distribution(contents: Contents, data: DescribedData) -> list[Json]:
    """Return the files of data: their manifest, what they were made of, and themselves."""
    manifest = contents.files[data.manifest_name]
    nodes: list[Json] = [
        _file(data.manifest_name, content_digest(manifest), content_size(manifest))
    ]
    sources = [text for text in data.texts("source") if re.match("https?://", text)]
    digests = data.texts("raw_sha256")
    if len(sources) == len(digests) == 1:
        nodes.append({**_file(sources[0], digests[0], None), "@id": _place(data, "raw")})
    if len(data.files) <= MOST_FILES:
        nodes += [_data_file(contents, data, file) for file in data.files]
    if _is_image_folder(data):
        formats = {_encoding(file.name) for file in data.files}
        nodes.append(
            {
                "@type": "cr:FileSet",
                "@id": _images(data),
                "name": _images(data),
                "encodingFormat": [*sorted(formats)],
                "includes": f"{own_place(data.own)}/**",
            }
        )
    return nodes


def _data_file(contents: Contents, data: DescribedData, file: DataFile) -> JsonObject:
    content = contents.files.get(file.name, file.path)
    node = _file(file.name, file.sha256, None if content is None else content_size(content))
    if not file.is_packed:
        where = f"the folder that {data.own} names has it" if data.own else "`make data` writes it"
        node["description"] = f"Not packed: {where}."
    return node


def _file(url: str, sha256: str, size: int | None) -> JsonObject:
    """Return a file, known by its address or by its name in the archive."""
    node: JsonObject = {
        "@type": "cr:FileObject",
        "@id": _identifier(url),
        "name": url.rpartition("/")[2] or url,
        "contentUrl": url,
        "encodingFormat": _encoding(url),
        "sha256": sha256,
    }
    if size is not None:
        node["contentSize"] = f"{size} B"
    return node


def _encoding(name: str) -> str:
    return _ENCODINGS.get(name.rpartition(".")[2].lower(), "application/octet-stream")


def _records(data: DescribedData) -> list[Json]:
    """Return the records that programs can read, and with them how many each part has."""
    records: list[Json] = []
    for file in data.files if len(data.files) <= MOST_FILES else []:
        if file.path and _encoding(file.name) in _TABLES and (kinds := read_columns(file.path)):
            columns = {name: _column(file.name, name) for name in kinds}
            records.append(_record_set(_place(data, file.below), kinds, columns))
    if _is_image_folder(data):
        records.append(_image_records(data))
    if records and data.splits:
        records.append(_parts(data))
    return records


def _record_set(place: str, kinds: dict[str, str], sources: dict[str, JsonObject]) -> JsonObject:
    """Return records with fields of these kinds, by their names."""
    fields: list[Json] = []
    for name, kind in kinds.items():
        field: JsonObject = {
            "@type": "cr:Field",
            "@id": f"{place}/{_identifier(name, safe='')}",
            "name": name,
            "dataType": kind,
        }
        if name in sources:
            field["source"] = sources[name]
        fields.append(field)
    return {"@type": "cr:RecordSet", "@id": place, "name": place, "field": fields}


def _column(file: str, name: str) -> JsonObject:
    return {"fileObject": {"@id": _identifier(file)}, "extract": {"column": name}}


def _image_records(data: DescribedData) -> JsonObject:
    """Return the images of a folder for each class; the class is the first folder of the path."""
    files: JsonObject = {"@id": _images(data)}
    return _record_set(
        _place(data, "samples"),
        {"image": "sc:ImageObject", "label": "sc:Text"},
        {
            "image": {"fileSet": files, "extract": {"fileProperty": "content"}},
            "label": {
                "fileSet": files,
                "extract": {"fileProperty": "fullpath"},
                "transform": {"regex": f"{own_place(data.own)}/([^/]+)/.*"},
            },
        },
    )


def _parts(data: DescribedData) -> JsonObject:
    """Return the parts of the data as records, with the number of their samples."""
    place = _place(data, "parts")
    rows: list[Json] = [
        {f"{place}/claim": claim, f"{place}/name": part, f"{place}/samples": size}
        for claim, sizes in data.splits.items()
        for part, size in sizes.items()
    ]
    kinds = {"claim": "sc:Text", "name": "sc:Text", "samples": "sc:Integer"}
    return {**_record_set(place, kinds, {}), "dataType": "cr:Split", "data": rows}


def _is_image_folder(data: DescribedData) -> bool:
    """Tell whether data are the author's own images, in a folder for each class."""
    return bool(data.own and data.files) and all(
        _encoding(file.name) in _IMAGES and "/" in file.below for file in data.files
    )


def _images(data: DescribedData) -> str:
    return _place(data, "images")


def _place(data: DescribedData, name: str) -> str:
    """Return a name that no other data of the archive have: it begins with that of the data."""
    folder = data.manifest_name.split("/")[1:-1]
    return _identifier("/".join([*folder, name]))


def _identifier(name: str, safe: str = "/") -> str:
    """Return an "@id": without spaces, which programs refuse there, %20 included."""
    return quote(name, safe=safe).replace("%", "=")
