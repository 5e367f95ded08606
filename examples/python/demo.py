"""kvstore from Python: the tour that every folder of examples/ makes in its language."""

import sys

import kvstore


def show(db, key):
    value = db.get(key)
    if value is None:
        print(f"{key.decode()}: not found")
    elif not value:
        print(f"{key.decode()}: 0 bytes")
    else:
        print(f"{key.decode()} = {value.decode()}")


def binary_key(db):
    key = bytes([0x00, 0xFF, 0x0A])
    db[key] = b"binary"
    print(f"{key.hex()} = {db[key].decode()}")


def users(db):
    with kvstore.Batch() as batch:  # all of it is written, or nothing
        for name, born in {b"grace": b"1906", b"ada": b"1815", b"alan": b"1912"}.items():
            batch[b"user:" + name] = born
        db.write(batch)
        print(f"batch of {len(batch)} written")

    if not db.set_if_absent(b"user:ada", b"2024"):
        print("ada is taken")

    for key, value in db.scan(prefix=b"user:", sort=True):
        print(f"{key.decode()} = {value.decode()}")


def provoke_an_error(db):
    try:
        db[bytes(70000)] = b""
    except kvstore.Error as error:
        print(f"error {error.code}: {error}")


def main():
    with kvstore.open(sys.argv[1] if len(sys.argv) > 1 else "demo.db") as db:
        db[b"greeting"] = b"hello"
        show(db, b"greeting")
        show(db, b"nothing")
        db[b"empty"] = b""
        show(db, b"empty")
        binary_key(db)
        users(db)
        provoke_an_error(db)
    print("closed")


if __name__ == "__main__":
    main()
