"""Photos with content credentials, signed with a certificate that is made on the spot and that nobody trusts."""

from __future__ import annotations

import datetime
import io
import json
from functools import cache

TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"


@cache
def credentials() -> tuple[bytes, bytes]:
    """(certificates, key), PEM, for es256."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def named(name):
        return x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "tests"), x509.NameAttribute(NameOID.COMMON_NAME, name)]
        )

    root, leaf = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    begin = datetime.datetime(2026, 1, 1)

    def certificate(name, key, authority):
        uses = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
        )
        uses |= dict(key_cert_sign=authority, crl_sign=authority, encipher_only=False, decipher_only=False)
        made = (
            x509.CertificateBuilder(named("root"), named(name), key.public_key(), x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + datetime.timedelta(days=36500))
            .add_extension(x509.BasicConstraints(authority, None), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), False)
            .add_extension(x509.KeyUsage(**{**uses, "digital_signature": not authority}), True)
        )
        if not authority:
            made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        return made.sign(root, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    key = leaf.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = certificate("signer", leaf, False) + certificate("root", root, True)
    return chain, key


@cache
def signer():
    import c2pa

    return c2pa.Signer.from_info(c2pa.C2paSignerInfo(b"es256", *credentials(), None))


def signed(image, format: str, assertions: list[dict], program: str = "Made-up Camera", of: bytes = b"") -> bytes:
    """A picture in this format with a manifest. of: a file of the same format, to be signed again as edited."""
    import c2pa

    plain, out, mime = io.BytesIO(of), io.BytesIO(), f"image/{format.lower()}"
    if not of:
        image.save(plain, format)
        plain.seek(0)
    content = {"claim_generator_info": [{"name": program, "version": "1.0"}], "format": mime, "assertions": assertions}
    with c2pa.Builder(json.dumps(content)) as builder:
        if of:
            builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
        builder.sign(signer(), mime, plain, out)
    return out.getvalue()


def action(kind: str, program: str = "", action: str = "c2pa.created") -> dict:
    """What was done. kind: a digital source type of IPTC's, such as trainedAlgorithmicMedia."""
    done = {"action": action, "digitalSourceType": TYPES + kind} | (
        {"softwareAgent": {"name": program}} if program else {}
    )
    return {"label": "c2pa.actions.v2", "data": {"actions": [done]}}


def creators(*names: str) -> dict:
    context = {"dc": "http://purl.org/dc/elements/1.1/"}
    return {"label": "cawg.metadata", "data": {"@context": context, "dc:creator": list(names)}}
