use std::process::Command;

use super::*;

/// Every entry of `archive` with its payload.
fn entries(archive: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut stream = TarStream::new(archive);
    let mut entries = Vec::new();
    while let Some(entry) = stream.next_entry()? {
        let mut payload = Vec::new();
        stream.read_to_end(&mut payload)?;
        entries.push((entry, payload));
    }
    Ok(entries)
}

/// What GNU tar writes for `name` in `directory`, with `options`.
fn gnu_tar(directory: &std::path::Path, options: &[&str], name: &str) -> Vec<u8> {
    let output =
        Command::new("tar").args(options).arg("-C").arg(directory).args(["-cf", "-", name]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn reads_long_names_of_both_forms() {
    let directory = tempfile::tempdir().unwrap();
    let long = "d".repeat(120) + "/" + &"n".repeat(200);
    std::fs::create_dir(directory.path().join("d".repeat(120))).unwrap();
    std::fs::write(directory.path().join(&long), b"content").unwrap();
    for format in ["--format=gnu", "--format=pax"] {
        let found = entries(&gnu_tar(directory.path(), &[format], &long)).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0.display(), long);
        assert_eq!(found[0].1, b"content");
    }
}

#[test]
fn reads_sparse_files_of_every_form() {
    let directory = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(directory.path().join("sparse")).unwrap();
    file.set_len(100 << 20).unwrap();
    for index in 0..30_u64 {
        std::os::unix::fs::FileExt::write_all_at(&file, &[index as u8 + 1; 4096], (index * 3) << 20).unwrap();
    }
    let forms: [&[&str]; 4] = [
        &["--format=gnu"],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ];
    for form in forms {
        let options = [&["--sparse", "--hole-detection=seek"], form].concat();
        let found = entries(&gnu_tar(directory.path(), &options, "sparse")).unwrap();
        let (entry, payload) = &found[0];
        let map = entry.sparse.as_ref().expect("the file is sparse");
        assert_eq!((entry.display().as_str(), map.real_size), ("sparse", 100 << 20), "{form:?}");
        assert_eq!((map.segments.len(), payload.len()), (30, 30 * 4096));
        assert_eq!(map.segments[7], (21 << 20, 4096));
        assert_eq!(payload[7 * 4096], 8);
    }
}

#[test]
fn numbers_of_every_form() {
    let mut negative = [0xff_u8; 12];
    negative[11] = 0xfe;
    let cases: [(&[u8], Option<i64>); 8] = [
        (b"0000644\0", Some(0o644)),
        (b"   644 \0", Some(0o644)),
        (b"\0\0\0\0", Some(0)),
        (b"644xxxx\0", None),
        (b"-644\0", None),
        (&[0x80, 0, 0, 1, 0], Some(256)),
        (&negative, Some(-2)),
        (&[0xbf; 12], None),
    ];
    for (field, value) in cases {
        assert_eq!(numeric(field), value, "{field:?}");
    }
}

/// One header of a file `name` that says it has `size` bytes.
fn header(name: &str, size: u64, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_path(name).unwrap();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_entry_type(kind);
    header.set_cksum();
    header
}

#[test]
fn broken_archives_are_refused() {
    let whole = [header("a", 5, EntryType::Regular).as_bytes().as_slice(), b"hello"].concat();
    assert!(matches!(entries(&whole), Err(TarError::Read(_))), "the padding is missing");
    assert!(matches!(entries(&whole[..300]), Err(TarError::Read(_))), "the header is cut");
    let mut flipped = whole.clone();
    flipped[0] = b'b';
    assert!(matches!(entries(&flipped), Err(TarError::Checksum(0))));
    let lying = header("a", 1 << 62, EntryType::Regular);
    assert!(matches!(entries(lying.as_bytes()), Err(TarError::Read(_))));
    let long = header("a", 1 << 40, EntryType::GNULongName);
    assert!(matches!(entries(long.as_bytes()), Err(TarError::MetadataTooLong(512))));
    let pax = [header("a", 6, EntryType::XHeader).as_bytes().as_slice(), b"xxxxxx", &[0; 506]].concat();
    assert!(matches!(entries(&pax), Err(TarError::Pax(_))));
}

#[test]
fn ends_at_the_marker_or_between_entries() {
    let one = header("a", 0, EntryType::Regular).as_bytes().to_vec();
    for end in [Vec::new(), vec![0; 512], [vec![0; 1024], b"garbage".to_vec()].concat()] {
        assert_eq!(entries(&[one.clone(), end].concat()).unwrap().len(), 1);
    }
    assert!(looks_like_tar(&one) && looks_like_tar(&[0; 512]) && !looks_like_tar(b"{}"));
}

/// Numbers without end that are the same in each run.
fn numbers() -> impl Iterator<Item = usize> {
    std::iter::successors(Some(1_u64), |state| {
        Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    })
    .map(|state| (state >> 33) as usize)
}

#[test]
fn damaged_archives_neither_panic_nor_hang() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("n".repeat(150)), b"content").unwrap();
    let file = std::fs::File::create(directory.path().join("sparse")).unwrap();
    file.set_len(1 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[1; 4096], 1 << 19).unwrap();
    let mut random = numbers();
    let mut next = |bound: usize| random.next().unwrap() % bound;
    for form in [&["--format=gnu", "-S"][..], &["--format=pax", "-S"]] {
        let whole = gnu_tar(directory.path(), form, ".");
        for _ in 0..2000 {
            let mut damaged = whole.clone();
            for _ in 0..1 + next(4) {
                let at = next(damaged.len());
                damaged[at] = next(256) as u8;
            }
            // A right checksum lets the damage through to what reads the fields.
            for block in damaged.chunks_exact_mut(BLOCK) {
                let mut header = Header::from_byte_slice(block).clone();
                if header.as_old().cksum != [0; 8] {
                    header.set_cksum();
                    block.copy_from_slice(header.as_bytes());
                }
            }
            let mut stream = TarStream::new(damaged.as_slice());
            while let Ok(Some(_)) = stream.next_entry() {}
        }
    }
}
