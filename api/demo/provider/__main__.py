"""`python -m api.demo.provider init|serve --folder F`: make a service provider, run it."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
from starlette.applications import Starlette

from api.demo.party import Tls, client, command_line, config_path, emit, load_config, main, serve
from api.demo.provider.back_end import PREPARE, RENEW, BackEnd
from api.demo.provider.keys import ProviderKeys
from api.demo.provider.outside import AuthorityClient, TsmClient
from api.demo.provider.site import Site, application
from api.demo.provider.state import State
from tsm.identifiers import Aid, SpId
from tsm.keys.vault import SoftwareVault


class ProviderConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """config.json of a provider. The last five fields are needed to serve, not to be made."""

    provider: str  # its id (spId)
    name: str
    domain: str  # AID of its security domain
    tls: Tls
    kek_file: Path  # the vault's key-encryption key, outside the folder
    host: str = "127.0.0.1"
    port: int = 0
    authority: str = ""  # id of the certificate authority
    authority_url: str = ""
    tsm_url: str = ""
    tsm_certificate_fingerprint: str = ""  # who may notify
    mas_public_key: str = ""  # SPKI, hex: verifies masSign


def init(folder: Path, config: ProviderConfig) -> None:
    """Make folder and keys, and print what the operator enrols. The URLs stand when the port is not 0."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    vault = SoftwareVault.create(folder / "vault", config.kek_file)
    ProviderKeys.make(vault)
    emit(**public_material(config, ProviderKeys(vault, SpId(config.provider), Aid(config.domain))))
    vault.close()


def public_material(config: ProviderConfig, keys: ProviderKeys) -> dict[str, object]:
    url = f"https://{config.host}:{config.port}"
    return {
        "provider": config.provider,
        "name": config.name,
        "certificate_fingerprint": config.tls.fingerprint,
        **keys.public_keys(),
        "notify_url": f"{url}/notify",
        "return_urls": [f"{url}{page}" for page in ("/mobile/return", PREPARE, RENEW)],
        "domain": config.domain,
        "authority": config.authority,
    }


def run(folder: Path, config: ProviderConfig) -> None:
    vault = SoftwareVault.open(folder / "vault", config.kek_file)
    keys = ProviderKeys(vault, SpId(config.provider), Aid(config.domain))
    serve(config, lambda url: joined_parts(folder, config, keys, url))


def joined_parts(folder: Path, config: ProviderConfig, keys: ProviderKeys, url: str) -> Starlette:
    def clock() -> datetime:
        return datetime.now(UTC)

    state = State(folder / "provider.sqlite", clock)
    http = client(config.tls)
    back_end = BackEnd(
        SpId(config.provider),
        url,
        keys,
        state,
        TsmClient(http, config.tsm_url),
        AuthorityClient(http, config.authority_url),
        bytes.fromhex(config.mas_public_key),
        clock,
    )
    return application(Site(back_end, config.tsm_certificate_fingerprint), back_end, state.close)


def command() -> None:
    arguments = command_line("The service provider of the demo", "init", "serve").parse_args()
    config = load_config(config_path(arguments), ProviderConfig)
    {"init": init, "serve": run}[arguments.command](arguments.folder, config)


if __name__ == "__main__":
    main(command)
