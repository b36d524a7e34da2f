"""The bundle on disk: manifest, records, vectors, heads; read strictly, never made here. Nothing that encodes or
searches."""

from .bundle import Bundle, Manifest, read_manifest

__all__ = ["Bundle", "Manifest", "read_manifest"]
