"""Croissant metadata: what a machine reads of a dataset.

The vocabulary is that of the Croissant format specification 1.0 (MLCommons,
http://mlcommons.org/croissant/1.0): files, sets of files, and the records that they hold.
"""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from relocal.publishing.config import PublishConfig

TABLE, IMAGES = "metadata.csv", "images"
COLUMNS: dict[str, tuple[str, str]] = {
    "file_name": ("sc:Text", "The photo's file."),
    "split": ("sc:Text", "train, test, or none: left out between the two."),
    "recording": ("sc:Text", "The recording that the photo belongs to."),
    **{
        key: ("sc:Float", f"{key} of the camera's centre in the world, in the scene's unit.")
        for key in "xyz"
    },
    **{
        f"q{key}": ("sc:Float", f"{key} of the unit quaternion that turns camera into world.")
        for key in "wxyz"
    },
    "camera_model": ("sc:Text", "COLMAP's name of the camera's model."),
    "width": ("sc:Integer", "Width of the photo in pixels."),
    "height": ("sc:Integer", "Height of the photo in pixels."),
    "camera_params": ("sc:Text", "COLMAP's parameters of the camera, with spaces between."),
}
"""Columns of the table, with their types and what they hold."""

_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".bmp": "image/bmp",
}
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def croissant(
    about: Mapping[str, str], config: PublishConfig, table_sha256: str, images: Sequence[str]
) -> dict[str, Any]:
    """The metadata of a published scene.

    Args:
        about: Its ``title``, ``description`` and ``citation``.
        config: What it says of itself.
        table_sha256: Of the table's file.
        images: Names of all photos.
    """
    licence = config.licence
    kinds = sorted({PurePath(name).suffix for name in images})
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": about["title"],
        "description": about["description"],
        "citeAs": about["citation"],
        "license": licence.url if licence else "LICENSE",
        "creator": [{"@type": "sc:Person", "name": name} for name in config.author],
        "datePublished": config.day,
        "version": config.version,
        **({"url": config.url} if config.url else {}),
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": TABLE,
                "name": TABLE,
                "description": "A line for each photo: its split, pose and camera.",
                "contentUrl": TABLE,
                "encodingFormat": "text/csv",
                "sha256": table_sha256,
            },
            *(_photos(kind) for kind in kinds),
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "poses",
                "name": "poses",
                "description": "Where each photo was taken.",
                "key": {"@id": "poses/file_name"},
                "field": [_field(name, *column) for name, column in COLUMNS.items()],
            }
        ],
    }


def _photos(kind: str) -> dict[str, Any]:
    name = f"photos{kind}"
    return {
        "@type": "cr:FileSet",
        "@id": name,
        "name": name,
        "description": "The photos.",
        "encodingFormat": _TYPES.get(kind.lower(), "application/octet-stream"),
        "includes": f"{IMAGES}/**/*{kind}",
    }


def _field(name: str, kind: str, about: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"poses/{name}",
        "name": name,
        "description": about,
        "dataType": kind,
        "source": {"fileObject": {"@id": TABLE}, "extract": {"column": name}},
    }
