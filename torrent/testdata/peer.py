"""A libtorrent client on loopback, for the tests.

create DIR NAME VERSION FILE   writes the torrent of DIR/NAME to FILE
seed TORRENT DIR               prints the port it listens on, until stdin ends
fetch TORRENT DIR PORT         downloads from the peer on that port
"""
import sys
import time

import libtorrent as lt

PIECE = 64 << 10
VERSIONS = {"v1": lt.create_torrent.v1_only, "hybrid": 0, "v2": lt.create_torrent.v2_only}


def create(directory, name, version, file):
    storage = lt.file_storage()
    lt.add_files(storage, directory + "/" + name)
    torrent = lt.create_torrent(storage, PIECE, VERSIONS[version])
    lt.set_piece_hashes(torrent, directory)
    with open(file, "wb") as out:
        out.write(lt.bencode(torrent.generate()))


def start(torrent, directory):
    session = lt.session({
        "listen_interfaces": "127.0.0.1:0",
        "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
        "enable_incoming_utp": False, "enable_outgoing_utp": False,
        "allow_multiple_connections_per_ip": True,
    })
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(torrent)
    params.save_path = directory
    return session, session.add_torrent(params)


def until_complete(handle):
    while not handle.status().is_seeding:
        if handle.status().errc.value():
            sys.exit(handle.status().errc.message())
        time.sleep(0.02)


def seed(torrent, directory):
    session, handle = start(torrent, directory)
    until_complete(handle)
    print(session.listen_port(), flush=True)
    sys.stdin.read()


def fetch(torrent, directory, port):
    session, handle = start(torrent, directory)
    while not handle.status().is_seeding:
        if handle.status().num_peers == 0:
            handle.connect_peer(("127.0.0.1", int(port)))
        time.sleep(0.05)
    print("done", flush=True)


{"create": create, "seed": seed, "fetch": fetch}[sys.argv[1]](*sys.argv[2:])
