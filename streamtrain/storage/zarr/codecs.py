"""The codecs of arrays: their names, what they cost, and the packages that have them."""

from __future__ import annotations

import re
import sys
from typing import Any

__all__ = ["codec_names", "copies_of", "package_of"]

#: codecs whose decoders need a second buffer of the decoded size
_GROWING = ("gzip", "zlib", "bz2", "lzma")
_CHECKSUMS = ("crc32", "adler32", "fletcher32", "jenkins")
_PACKAGES = {
    "pcodec": "numcodecs[pcodec]", "zfpy": "numcodecs[zfpy]", "msgpack2": "numcodecs[msgpack]", "crc32c": "numcodecs[crc32c]",
    "grib": "kerchunk", "FITSAscii": "kerchunk", "FITSVarBintable": "kerchunk", "record_member": "kerchunk",
    "gribscan.rawgrib": "gribscan",
}  # fmt: skip


def package_of(name: str) -> str:
    """The package that has a codec, as pip knows it; "" if it is not known.

    >>> package_of("imagecodecs_jpegxl"), package_of("numcodecs.pcodec"), package_of("mine")
    ('imagecodecs', 'numcodecs[pcodec]', '')
    """
    if re.match(r"imagecodecs[_.]", name):
        return "imagecodecs"
    return _PACKAGES.get(name.removeprefix("numcodecs."), "")


def codec_names(array: Any) -> list[str]:
    """The names of the compressors: ``zstd`` for ``{"id": "zstd"}`` in version 2 and ``{"name": "numcodecs.zstd"}`` in 3."""
    return [_name(codec) for codec in array.compressors]


def _name(codec: Any) -> str:
    if hasattr(codec, "get_config"):
        return str(codec.get_config()["id"])
    return str(codec.to_dict()["name"]).removeprefix("numcodecs.")


def copies_of(array: Any) -> int:
    """The number of decoded copies beside the result, from the names of the codecs."""
    compressors = [name for name in codec_names(array) if not name.startswith(_CHECKSUMS)]
    copies = len(tuple(array.filters)) + max(0, len(compressors) - 1)
    copies += any(name.startswith(_GROWING) for name in compressors)
    swapped = array.dtype.kind in "iufcMm" and not array.dtype.isnative
    if array.metadata.zarr_format == 3:  # in version 3 the codec has the byte order, not the type
        endian = getattr(array.serializer, "endian", None)
        swapped = swapped or (endian is not None and endian.value != sys.byteorder)
    return int(copies + bool(swapped) + (array.order == "F"))
