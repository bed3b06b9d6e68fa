"""Keep a repository of bundles that stations pull from: a folder for any static web server, or for a USB stick.
docs/fleet.md goes through it step by step."""

from __future__ import annotations

import argparse
from datetime import datetime, timedelta, timezone
from pathlib import Path

from lineward.export.fleet import publishing
from lineward.export.fleet.keys import name_of
from lineward.export.fleet.lists import ONLINE_DAYS, SNAPSHOT, TIMESTAMP, Lists, read_lists
from lineward.export.fleet.publishing import ONLINE, Publisher
from lineward.export.passphrase import PASSPHRASE_VARIABLE, read_passphrase
from lineward.export.signing import SigningKey, open_key, read_key_file
from lineward.runtime.cli import PASSED
from lineward.runtime.cli.console import print_error, print_table
from lineward.runtime.delivery.release import Release
from lineward.runtime.errors import FleetError
from lineward.runtime.public_key import PublicKey, read_public_key

_NOTICE = timedelta(days=30)
_KEY = ".key"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True)
    init = _action(actions, "init", "make a repository")
    init.add_argument("--root", type=Path, action="append", required=True, metavar="FILE", help="says whose keys count")
    init.add_argument("--threshold", type=int, default=1, metavar="N", help="root keys that must sign (default: 1)")
    init.add_argument("--targets", type=Path, required=True, metavar="FILE", help="says whose key lists which product")
    init.add_argument("--online", type=Path, required=True, metavar="FILE", help="signs that the lists are the newest")
    delegate = _action(actions, "delegate", "say whose key lists a product's bundles; takes the targets key")
    delegate.add_argument("product")
    delegate.add_argument("--to", type=Path, action="append", required=True, metavar="FILE", help="one of these")
    add = _action(actions, "add", "publish a signed bundle; takes the product's key")
    add.add_argument("bundle", type=Path)
    _add_rollout(add)
    rollout = _action(actions, "rollout", "change which stations take a bundle; takes the product's key")
    _add_release(rollout)
    _add_rollout(rollout)
    recall = _action(actions, "recall", "have stations go back from a bundle; takes the product's key")
    _add_release(recall)
    recall.add_argument("--why", required=True, metavar="TEXT", help="for the stations' history")
    _action(actions, "refresh", "sign for another term, every list whose keys are given")
    rotate = _action(actions, "rotate", "replace keys; takes the root's")
    rotate.add_argument("role", choices=("root", "targets", "online"))
    rotate.add_argument("--to", type=Path, action="append", required=True, metavar="FILE", help="the keys from now on")
    rotate.add_argument("--threshold", type=int, default=1, metavar="N", help="of them that must sign (default: 1)")
    actions.add_parser("show", help="what is published, by whose keys, until when").add_argument(
        "repository", type=Path
    )


def run(arguments: argparse.Namespace) -> int:
    """Do it, and say what holds then."""
    if arguments.action == "show":
        _show(read_lists(arguments.repository))
        return PASSED
    _ACTIONS[arguments.action](arguments, _publisher(arguments))
    _warn_of_expiry(read_lists(arguments.repository))
    return PASSED


def _init(arguments: argparse.Namespace, publisher: Publisher) -> None:
    roots = [_public(path) for path in arguments.root]
    publishing.make(publisher, roots, arguments.threshold, _public(arguments.targets), _public(arguments.online))
    print(f"{publisher.folder}: a repository without bundles, to be served as it is")
    print(f"copy {publisher.folder}/metadata/1.root.json to every station: `root` of its table [fleet]")


def _delegate(arguments: argparse.Namespace, publisher: Publisher) -> None:
    keys = [_public(path) for path in arguments.to]
    publishing.delegate(publisher, arguments.product, keys)
    print(f"{arguments.product}: listed by {', '.join(key.name for key in keys)}")


def _add(arguments: argparse.Namespace, publisher: Publisher) -> None:
    groups = tuple(arguments.group or ())
    percentage = arguments.percentage if arguments.percentage is not None else 0 if groups else 100
    _say(publishing.add(publisher, arguments.bundle, groups, percentage, bool(arguments.hold)))


def _rollout(arguments: argparse.Namespace, publisher: Publisher) -> None:
    groups = tuple(arguments.group) if arguments.group is not None else None
    _say(
        publishing.roll_out(
            publisher, arguments.product, arguments.version, groups, arguments.percentage, arguments.hold
        )
    )


def _recall(arguments: argparse.Namespace, publisher: Publisher) -> None:
    _say(publishing.recall(publisher, arguments.product, arguments.version, arguments.why))


def _refresh(_arguments: argparse.Namespace, publisher: Publisher) -> None:
    publishing.refresh(publisher)
    _show(read_lists(publisher.folder))


def _rotate(arguments: argparse.Namespace, publisher: Publisher) -> None:
    keys = [_public(path) for path in arguments.to]
    publishing.rotate(publisher, arguments.role, keys, arguments.threshold)
    print(f"{arguments.role}: {arguments.threshold} of {', '.join(key.name for key in keys)}")


_ACTIONS = {
    "init": _init,
    "delegate": _delegate,
    "add": _add,
    "rollout": _rollout,
    "recall": _recall,
    "refresh": _refresh,
    "rotate": _rotate,
}


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, help: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=help, description=help)
    parser.add_argument("repository", type=Path, metavar="REPOSITORY", help="the folder that is served")
    parser.add_argument(
        "--key", type=Path, action="append", default=[], metavar="NAME.key", help="signs; once for each key it takes"
    )
    parser.add_argument(
        "--passphrase-file", type=Path, metavar="FILE", help=f"else {PASSPHRASE_VARIABLE}, else asked for"
    )
    parser.add_argument(
        "--days", type=int, default=ONLINE_DAYS, help=f"the lists count as the newest so long (default: {ONLINE_DAYS})"
    )
    return parser


def _add_release(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("product")
    parser.add_argument("version", type=int)


def _add_rollout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--group", action="append", metavar="NAME", help="stations in it take the bundle; may be repeated"
    )
    parser.add_argument(
        "--percentage", type=int, metavar="N", help="of all stations take it besides (add: 100, or 0 with --group)"
    )
    parser.add_argument("--hold", action=argparse.BooleanOptionalAction, help="no station takes it any more, for now")


def _publisher(arguments: argparse.Namespace) -> Publisher:
    """With every private key that is named, also by `--to` and by `init`."""
    named = [*arguments.key]
    for option in ("root", "to"):
        named += getattr(arguments, option, None) or []
    named += [path for option in ("targets", "online") if (path := getattr(arguments, option, None)) is not None]
    paths = list(dict.fromkeys(path for path in named if path.suffix == _KEY or path in arguments.key))
    for path in paths:
        read_key_file(path)  # what is wrong with a file is said before anyone types a passphrase
        if path.resolve().is_relative_to(arguments.repository.resolve()):
            raise FleetError(f"{path}: a private key lies in the folder that is served", do="move it elsewhere")
    if not 1 <= arguments.days <= 365:
        raise FleetError(f"--days {arguments.days}", do="choose from 1 to 365")
    keys = [_open(path, arguments.passphrase_file) for path in paths]
    return Publisher(arguments.repository, keys, datetime.now(timezone.utc), arguments.days)


def _open(path: Path, passphrase_file: Path | None) -> SigningKey:
    return open_key(path, read_passphrase(passphrase_file, of=path.name))


def _public(path: Path) -> PublicKey:
    return read_key_file(path).public if path.suffix == _KEY else read_public_key(path)


def _say(release: Release) -> None:
    print(f"{release.product} {release.version}: {_reach(release)}")


def _reach(release: Release) -> str:
    if release.recalled is not None:
        return f"recalled: {release.recalled}"
    groups = f"groups {', '.join(release.groups)}" if release.groups else ""
    share = f"{release.percentage} % of all stations" if release.percentage or not groups else ""
    return ", ".join(word for word in (groups, share, "on hold" if release.hold else "") if word)


def _show(lists: Lists) -> None:
    rows = []
    for role in lists.roles:
        keys = lists.keys_of(role)
        who = f"{lists.threshold_of(role)} of {', '.join(name_of(key) for key in keys)}"
        signed = lists.list_of(role).signed
        rows.append((role, str(signed.version), f"{signed.expires:%Y-%m-%d %H:%M}", who))
    print_table("", ("list", "version", "counts until, UTC", "signed by"), rows)
    releases = [(r.product, str(r.version), r.bundle[:12], _reach(r)) for r in publishing.all_releases(lists)]
    if releases:
        print_table("", ("product", "version", "bundle", "for"), releases)


def _warn_of_expiry(lists: Lists) -> None:
    """What `refresh` with the online key alone does not renew."""
    now = datetime.now(timezone.utc)
    for role in lists.roles:
        expires = lists.list_of(role).signed.expires
        if role not in (SNAPSHOT, TIMESTAMP) and expires - now < _NOTICE:
            print_error(
                f"WARNING: the list of {role} counts until {expires:%Y-%m-%d}; afterwards no station takes anything\n"
                f"  -> `lineward publish refresh` with the keys of {role} and {ONLINE}"
            )
