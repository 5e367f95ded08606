use super::*;
use crate::storage::{read_exact_at, write_all_at};

fn storage() -> (tempfile::TempDir, RealStorage) {
    let dir = tempfile::tempdir().unwrap();
    let storage = RealStorage::open(dir.path()).unwrap();
    (dir, storage)
}

fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
    result.err().expect("an error").kind()
}

#[test]
fn files_are_created_listed_renamed_and_removed() {
    let (_dir, s) = storage();
    assert_eq!(s.list().unwrap(), Vec::<String>::new());
    s.create("a").unwrap();
    assert_eq!(kind(s.create("a")), io::ErrorKind::AlreadyExists);
    s.create("b").unwrap();
    s.rename("a", "c").unwrap();
    s.sync_dir().unwrap();
    let mut names = s.list().unwrap();
    names.sort();
    assert_eq!(names, ["b", "c"]);
    assert_eq!(kind(s.open("a", false)), io::ErrorKind::NotFound);
    s.rename("b", "c").unwrap();
    s.remove("c").unwrap();
    assert_eq!(kind(s.remove("c")), io::ErrorKind::NotFound);
    assert_eq!(s.list().unwrap(), Vec::<String>::new());
    assert_eq!(kind(s.create("a\0b")), io::ErrorKind::InvalidInput);
}

#[test]
fn a_linked_file_is_one_file_with_two_names() {
    let ((_a, a), (_b, b)) = (storage(), storage());
    let a: Arc<dyn Storage> = Arc::new(a);
    write_all_at(&*a.create("f").unwrap(), b"one", 0).unwrap();
    b.link_from(&a, "f").unwrap();
    assert_eq!(kind(b.link_from(&a, "f")), io::ErrorKind::AlreadyExists);
    assert_eq!(kind(b.link_from(&a, "g")), io::ErrorKind::NotFound);
    b.sync_dir().unwrap();
    a.remove("f").unwrap();
    let mut bytes = [0; 3];
    read_exact_at(&*b.open("f", false).unwrap(), &mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"one");
}

#[test]
fn bytes_written_are_read_and_synced() {
    let (_dir, s) = storage();
    let f = s.create("f").unwrap();
    write_all_at(&*f, b"hello", 3).unwrap();
    assert_eq!(f.len().unwrap(), 8);
    let mut buf = [9; 8];
    read_exact_at(&*s.open("f", false).unwrap(), &mut buf, 0).unwrap();
    assert_eq!(&buf, b"\0\0\0hello");
    assert_eq!(f.read_at(&mut buf, 8).unwrap(), 0);
    assert_eq!(kind(read_exact_at(&*f, &mut buf, 1)), io::ErrorKind::UnexpectedEof);
    f.set_len(4).unwrap();
    f.set_len(6).unwrap();
    assert_eq!(f.read_at(&mut buf, 0).unwrap(), 6);
    assert_eq!(&buf[..6], b"\0\0\0h\0\0");
    f.sync().unwrap();
}

#[test]
fn a_sync_that_is_started_changes_nothing() {
    let (_dir, storage) = storage();
    let file = storage.create("f").unwrap();
    write_all_at(&*file, &[7; 100_000], 0).unwrap();
    for (offset, len) in [(0, 65_536), (5, 0), (90_000, 1 << 30), (u64::MAX, 1), (0, u64::MAX)] {
        file.start_sync(offset, len).unwrap();
    }
    let mut bytes = vec![0; 100_000];
    read_exact_at(&*file, &mut bytes, 0).unwrap();
    assert!(bytes.iter().all(|&b| b == 7));
    assert_eq!(file.len().unwrap(), 100_000);
    file.sync().unwrap();
}

#[test]
fn a_file_opened_for_reading_takes_no_writes() {
    let (_dir, s) = storage();
    s.create("f").unwrap().set_len(1).unwrap();
    let f = s.open("f", false).unwrap();
    assert!(f.write_at(b"x", 0).is_err());
    assert!(f.map(1, true).is_err());
}

#[test]
fn what_is_not_a_regular_file_is_an_error_and_does_not_block() {
    let (dir, s) = storage();
    fs::create_dir(dir.path().join("d")).unwrap();
    let fifo = CString::new(dir.path().join("p").to_str().unwrap()).unwrap();
    // SAFETY: the path is NUL-terminated and outlives the call.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
    assert_eq!(kind(s.open("d", false)), io::ErrorKind::InvalidInput);
    assert_eq!(kind(s.open("p", false)), io::ErrorKind::InvalidInput);
    assert!(RealStorage::open(&dir.path().join("p")).is_err());
}

#[test]
fn a_renamed_directory_stays_ours() {
    let outer = tempfile::tempdir().unwrap();
    create_dir(&outer.path().join("a")).unwrap();
    assert_eq!(kind(create_dir(&outer.path().join("a"))), io::ErrorKind::AlreadyExists);
    sync_parent(&outer.path().join("a")).unwrap();
    let s = RealStorage::open(&outer.path().join("a")).unwrap();
    fs::rename(outer.path().join("a"), outer.path().join("b")).unwrap();
    s.create("f").unwrap();
    assert!(outer.path().join("b/f").exists());
    assert_eq!(s.list().unwrap(), ["f"]);
}

#[test]
fn locks_conflict_between_handles_and_not_within_readers() {
    let (dir, a) = storage();
    let b = RealStorage::open(dir.path()).unwrap();
    a.lock(true).unwrap();
    assert_eq!(a.list().unwrap(), Vec::<String>::new(), "a reader must not write");
    a.unlock();

    a.lock(false).unwrap();
    let note = fs::read_to_string(dir.path().join("LOCK")).unwrap();
    assert_eq!(note.trim(), std::process::id().to_string());
    for shared in [false, true] {
        assert_eq!(kind(a.lock(shared)), io::ErrorKind::WouldBlock);
        assert_eq!(kind(b.lock(shared)), io::ErrorKind::WouldBlock);
    }
    a.unlock();
    a.lock(true).unwrap();
    b.lock(true).unwrap();
    b.unlock();
    assert_eq!(kind(b.lock(false)), io::ErrorKind::WouldBlock);
    a.unlock();
    b.lock(false).unwrap();
}

#[test]
fn a_leftover_lock_file_blocks_nobody_and_unlock_beats_a_duplicate() {
    let (dir, a) = storage();
    fs::write(dir.path().join("LOCK"), "99999999 some long garbage").unwrap();
    a.lock(false).unwrap();
    // What a forked child keeps.
    let kept = guard(&a.lock).as_ref().unwrap().try_clone().unwrap();
    a.unlock();
    a.unlock();
    RealStorage::open(dir.path()).unwrap().lock(false).unwrap();
    drop(kept);
}

#[test]
fn allocation_extends_with_zeros_and_never_shrinks() {
    let (_dir, s) = storage();
    let f = s.create("f").unwrap();
    write_all_at(&*f, b"x", 0).unwrap();
    match f.allocate(100_000) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => assert!(!s.reserves_blocks()),
        result => {
            result.unwrap();
            assert_eq!(f.len().unwrap(), 100_000);
            f.allocate(10).unwrap();
            f.allocate(0).unwrap();
            assert_eq!(f.len().unwrap(), 100_000);
            let mut tail = [1; 2];
            read_exact_at(&*f, &mut tail, 99_998).unwrap();
            assert_eq!(tail, [0, 0]);
            assert_eq!(kind(f.allocate(u64::MAX)), io::ErrorKind::FileTooLarge);
            assert_eq!(f.len().unwrap(), 100_000);
        }
    }
}

#[test]
fn maps_grow_with_the_file_and_share_its_bytes() {
    let (_dir, s) = storage();
    let f = s.create("f").unwrap();
    let page = page_size();
    assert_eq!(kind(f.map(0, false)), io::ErrorKind::InvalidInput);
    let map = f.map(64 * page, true).unwrap();
    assert_eq!(map.len(), 64 * page);
    f.set_len(2 * page as u64).unwrap();
    map.populate(1, page);
    map.populate(60 * page, 100 * page);
    // SAFETY: inside the file, and nobody else touches the map.
    unsafe { map.write(page - 1, 3, |bytes| bytes.copy_from_slice(b"abc")).unwrap() };
    f.sync().unwrap();
    let mut buf = [0; 3];
    read_exact_at(&*f, &mut buf, page as u64 - 1).unwrap();
    assert_eq!(&buf, b"abc");
    f.set_len(5 * page as u64).unwrap();
    write_all_at(&*f, b"z", 4 * page as u64).unwrap();
    drop(f);
    // SAFETY: inside the file, and nobody stores.
    unsafe { assert_eq!(map.bytes(4 * page, 2).unwrap(), b"z\0") };
}

#[test]
fn a_sealed_map_reads_on_and_gives_back_its_tail() {
    let (_dir, s) = storage();
    let f = s.create("f").unwrap();
    let page = page_size();
    f.set_len(3 * page as u64).unwrap();
    let map = f.map(1 << 30, true).unwrap();
    write_all_at(&*f, b"end", page as u64).unwrap();
    map.seal(page + 3);
    f.set_len(page as u64 + 3).unwrap();
    map.populate(0, 1 << 30);
    map.seal(page + 3);
    map.expect_reads(page + 3);
    map.expect_reads(1 << 30);
    // SAFETY: inside the file, and nobody stores.
    unsafe { assert_eq!(map.bytes(page, 3).unwrap(), b"end") };
    drop(map);
    let map = f.map(page, false).unwrap();
    map.seal(0);
    drop(map);
}

#[test]
fn clock_and_random_work() {
    let (_dir, s) = storage();
    assert!(s.clock() > 1_600_000_000_000_000_000);
    assert!(s.memory() > 1 << 20);
    assert_ne!(s.random().unwrap(), s.random().unwrap());
}

#[test]
fn descriptors_are_not_inherited() {
    let (_dir, s) = storage();
    s.lock(false).unwrap();
    // SAFETY: plain system calls on descriptors that are open.
    let flags = |fd: c_int| unsafe { libc::fcntl(fd, libc::F_GETFD) };
    assert_eq!(flags(s.dir.as_raw_fd()), libc::FD_CLOEXEC);
    assert_eq!(flags(guard(&s.lock).as_ref().unwrap().as_raw_fd()), libc::FD_CLOEXEC);
    let f = open_at(&s.dir, c"f", libc::O_RDWR | libc::O_CREAT).unwrap();
    assert_eq!(flags(f.as_raw_fd()), libc::FD_CLOEXEC);
}

/// The limit holds for a whole process and exceeding it kills, so this runs itself in a process of its own.
#[test]
fn the_file_size_limit_is_an_error_not_a_signal() {
    const CHILD: &str = "KVSTORE_TEST_FILE_SIZE_LIMIT";
    if std::env::var_os(CHILD).is_none() {
        let name = format!("{}::the_file_size_limit_is_an_error_not_a_signal", module_path!());
        let name = name.split_once("::").unwrap().1;
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
        return;
    }
    let set = |bytes| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` is writable and outlives the calls.
        unsafe {
            assert_eq!(libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit), 0);
            limit.rlim_cur = bytes;
            assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
        }
    };
    let (dir, s) = storage();
    let long = s.create("long").unwrap();
    long.set_len(8192).unwrap();
    drop(long);
    set(4096);
    let f = s.create("f").unwrap();
    assert_eq!(kind(f.allocate(4097)), io::ErrorKind::FileTooLarge);
    assert_eq!(kind(f.set_len(4097)), io::ErrorKind::FileTooLarge);
    assert_eq!(kind(f.write_at(b"xy", 4095)), io::ErrorKind::FileTooLarge);
    assert_eq!(f.len().unwrap(), 0);
    write_all_at(&*f, b"x", 4095).unwrap();
    // A file that is longer than the limit from before may be cut, but not written behind the limit.
    let long = s.open("long", true).unwrap();
    assert_eq!(kind(long.write_at(b"x", 5000)), io::ErrorKind::FileTooLarge);
    long.set_len(6000).unwrap();
    write_all_at(&*long, b"x", 4000).unwrap();
    set(0);
    s.lock(false).unwrap();
    assert_eq!(fs::read(dir.path().join("LOCK")).unwrap(), b"");
    set(libc::RLIM_INFINITY);
}
