"""Certificates to try TLS with: an authority, a server that it vouches for, a client, and a stranger."""

from __future__ import annotations

from pathlib import Path

import trustme


def certificates(folder: Path) -> dict[str, str]:
    """Paths of PEM files: ``ca``, ``server`` and ``client`` (both with ``_key``), ``stranger`` (another authority's)
    and ``other_ca``.
    """
    ours, other = trustme.CA(), trustme.CA()
    made = {"server": ours.issue_cert("localhost", "127.0.0.1"), "client": ours.issue_cert("client@example.org")}
    made["stranger"] = other.issue_cert("stranger@example.org")
    paths = {"ca": folder / "ca.pem", "other_ca": folder / "other-ca.pem"}
    ours.cert_pem.write_to_path(str(paths["ca"]))
    other.cert_pem.write_to_path(str(paths["other_ca"]))
    for name, cert in made.items():
        paths |= {name: folder / f"{name}.pem", f"{name}_key": folder / f"{name}-key.pem"}
        for blob in cert.cert_chain_pems:
            blob.write_to_path(str(paths[name]), append=True)
        cert.private_key_pem.write_to_path(str(paths[f"{name}_key"]))
    return {name: str(path) for name, path in paths.items()}
