//! Archives that two readers could understand differently, and broken ones: T20 to T24.

use super::*;

const TWO: &str = "an entry has two extended headers of a kind";
const PAX: &str = "an extended header breaks the pax format";

/// The position is that after what was read: the header, and an extended header's text.
fn damaged(at: u64, what: &str) -> String {
    format!("! the archive is damaged at byte {at}: {what}")
}

#[test]
fn t20_gnu_long_names() {
    let long = |t: Tar, kind: u8, name: &[u8]| t.raw(kind, "././@LongLink", "", 0, name);
    let mut corpus = Corpus::default();
    corpus.case("L", |t, _| long(t, b'L', b"long\0").file("a", "x"), "f long");
    corpus.case("K", |t, _| long(t, b'K', b"../to\0").symlink("a", "x"), "l a");
    corpus.case(
        "L and K",
        |t, _| long(long(t.file("f", ""), b'L', b"h"), b'K', b"f").link("a", "x"),
        "f f, f h",
    );
    corpus.case(
        "NUL inside",
        |t, _| long(t, b'L', b"lo\0ng").file("a", "x"),
        &damaged(517, "a long name holds a NUL"),
    );
    corpus.case(
        "out",
        |t, _| long(t, b'L', b"../x\0").file("a", "x"),
        "! the archive holds the path `../x`: it may lead out of the layer",
    );
    corpus.case(
        "L at the end",
        |t, _| long(t, b'L', b"long\0"),
        &damaged(1536, "it ends after an extended header"),
    );
    corpus.case("two L", |t, _| long(long(t, b'L', b"a\0"), b'L', b"b\0").file("c", ""), &damaged(1536, TWO));
    corpus.case(
        "two K",
        |t, _| long(long(t, b'K', b"a\0"), b'K', b"b\0").symlink("c", "d"),
        &damaged(1536, TWO),
    );
    // Which of the two counts depends on the reader.
    let both = |key: &'static str, kind: u8| {
        move |t: Tar, _: &str| long(t, kind, b"a\0").pax(key, "b").symlink("c", "d")
    };
    corpus.case("L and pax", both("path", b'L'), &damaged(2560, "an entry has two names"));
    corpus.case("K and pax", both("linkpath", b'K'), &damaged(2560, "an entry has two names"));
    corpus.case("L and the same pax", |t, _| long(t, b'L', b"a\0").pax("path", "a").file("c", ""), "f a");
}

#[test]
fn t21_pax_against_the_header() {
    let mut corpus = Corpus::default();
    corpus.case("path", |t, _| t.pax("path", "real").file("false", "x"), "f real");
    corpus.case("empty path", |t, _| t.pax("path", "").file("real", "x"), "f real");
    corpus.case(
        "path with NUL",
        |t, _| t.pax("path", "a\0b").file("c", "x"),
        "! the archive holds the path `a\\u{0}b`: it holds a NUL",
    );
    let out = "! the archive holds the path `../x`: it may lead out of the layer";
    corpus.case("path out", |t, _| t.pax("path", "../x").file("a", "x"), out);
    corpus.case(
        "two sizes",
        |t, _| t.pax("size", "1").file("a", "xy"),
        &damaged(1536, "a file has two sizes"),
    );
    corpus.case(
        "size 0 in pax",
        |t, _| t.pax("size", "0").file("a", "xy"),
        &damaged(1536, "a file has two sizes"),
    );
    // The header says nothing, as where a file is larger than it can say; its data is no further header.
    let inner = Tar::default().file("smuggled", "").0;
    let hidden = |t: Tar, _: &str| t.pax("size", "512").raw(b'0', "a", "", 0o644, b"").data(&inner);
    corpus.case("size 0 in the header", hidden, "f a");
    corpus.case("negative size", |t, _| t.pax("size", "-1").file("a", "x"), &damaged(523, PAX));
    corpus.case(
        "endless size",
        |t, _| t.pax("size", "1152921504606846976").raw(b'0', "a", "", 0o644, b""),
        "! the archive exceeds the limit of 53687091200 bytes",
    );
    corpus.case("nested", |t, _| t.pax("path", "a").pax("path", "b").file("c", ""), &damaged(1536, TWO));
    corpus.case("at the end", |t, _| t.pax("path", "a"), &damaged(1536, "it ends after an extended header"));
    // What a folder or a link has for a size is no data: Go reads the next header there.
    for kind in [b'1', b'2', b'5', b'6'] {
        let sized =
            |t: Tar, _: &str| t.file("f", "").header(header(kind, b"k", b"f", 0o755, 512)).file("seen", "");
        corpus.case(
            &format!("kind {kind} with a size"),
            sized,
            &format!(
                "f f, {} k, f seen",
                match kind {
                    b'1' => 'f',
                    b'2' => 'l',
                    b'5' => 'd',
                    _ => 'p',
                }
            ),
        );
    }
    let global = |key: &'static str, value: &'static str| {
        move |t: Tar, _: &str| t.raw(b'g', "g", "", 0, &record(key, value.as_bytes())).file("a", "x")
    };
    for (key, value) in [("path", "evil"), ("linkpath", "evil"), ("size", "512"), ("uid", "1"), ("gid", "1")]
    {
        corpus.case(
            &format!("global {key}"),
            global(key, value),
            &damaged(
                512 + record(key, value.as_bytes()).len() as u64,
                "a global extended header describes files",
            ),
        );
    }
    corpus.case("global comment", global("comment", "made by a version control system"), "f a");
}

#[test]
fn t22_pax_headers() {
    let mut corpus = Corpus::default();
    let large = |t: Tar, _: &str| t.header(header(b'x', b"p", b"", 0, 100 << 20));
    corpus.case("100 MiB", large, "! the archive exceeds the limit of 1048576 bytes in an extended header");
    let large = |t: Tar, _: &str| t.header(header(b'L', b"l", b"", 0, 100 << 20));
    corpus.case(
        "name of 100 MiB",
        large,
        "! the archive exceeds the limit of 1048576 bytes in an extended header",
    );
    for bad in [
        "x",
        "8 path=a\n",
        "11 path=a\n",
        "-1 path=a\n",
        "99999999999999999999 a=b\n",
        "6 a=b ",
        "5 =b\n",
        "0 a=b\n",
        "9 path=a",
        "9999 path=a\n",
        " path=a\n",
        "+9 path=a\n",
    ] {
        corpus.case(
            bad,
            |t, _| t.raw(b'x', "p", "", 0, bad.as_bytes()).file("a", ""),
            &damaged(512 + bad.len() as u64, PAX),
        );
    }
}

#[test]
fn t23_sparse_files() {
    let mut corpus = Corpus::default();
    const SPARSE: &str = "sparse files are not supported in layers";
    let pax = |records: &'static [(&'static str, &'static str)]| {
        let records: Vec<u8> =
            records.iter().flat_map(|(key, value)| record(key, value.as_bytes())).collect();
        move |t: Tar, _: &str| t.raw(b'x', "p", "", 0, &records).file("a", "x")
    };
    let old = |t: Tar, _: &str| t.raw(b'S', "a", "", 0o644, b"");
    corpus.case("old", old, &format!("! the archive's entry `a` is refused: {SPARSE}"));
    corpus.case(
        "0.0",
        pax(&[("GNU.sparse.size", "9"), ("GNU.sparse.numblocks", "1"), ("GNU.sparse.offset", "0")]),
        &damaged(582, SPARSE),
    );
    corpus.case("0.1", pax(&[("GNU.sparse.map", "0,1,2,1")]), &damaged(538, SPARSE));
    corpus.case("1.0", pax(&[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0")]), &damaged(556, SPARSE));
    corpus.case("2^60 bytes", pax(&[("GNU.sparse.realsize", "1152921504606846976")]), &damaged(555, SPARSE));
    // A million regions: more than a header may have, and refused all the same where they are fewer.
    let regions = |count: usize| {
        move |t: Tar, _: &str| {
            t.raw(b'x', "p", "", 0, &record("GNU.sparse.map", vec!["1,1"; count].join(",").as_bytes()))
                .file("a", "x")
        }
    };
    corpus.case(
        "10^6 regions",
        regions(1_000_000),
        "! the archive exceeds the limit of 1048576 bytes in an extended header",
    );
    corpus.case("10^5 regions", regions(100_000), &damaged(400_534, SPARSE));
}

#[test]
fn t24_numbers_checksums_ends() {
    const RANGE: &str = "a header's number is out of range";
    const NUMBER: &str = "a header's number cannot be read";
    let mut corpus = Corpus::default();
    let field = |at: usize, value: &'static [u8]| {
        move |t: Tar, _: &str| t.raw(b'0', "a", "", 0o644, b"").field(at, value)
    };
    corpus.case("base-256 size", field(124, b"\x80\0\0\0\0\0\0\0\0\0\0\0"), "f a");
    corpus.case("base-256 size -1", field(124, &[0xff; 12]), &damaged(512, RANGE));
    corpus.case("base-256 size 2^90", field(124, b"\x84\0\0\0\0\0\0\0\0\0\0\0"), &damaged(512, NUMBER));
    corpus.case("base-256 uid -1", field(108, &[0xff; 8]), &damaged(512, RANGE));
    corpus.case("octal garbage", field(124, b"0000000x000\0"), &damaged(512, NUMBER));
    corpus.case("not octal", field(124, b"00000000009\0"), &damaged(512, NUMBER));
    corpus.case("signed octal", field(124, b"-0000000001\0"), &damaged(512, NUMBER));
    corpus.case("digits after the end", field(124, b"00000\x00000000"), &damaged(512, NUMBER));
    corpus.case("blank size", field(124, b"            "), "f a");
    corpus.case("size 2^33", field(124, b"100000000000"), &damaged(1536, "it ends within a file"));
    let whole = Tar::default().file("a", "content").0;
    let mut wrong = whole.clone();
    wrong[0] = b'b';
    corpus.bytes("checksum", &wrong, &damaged(0, "a header's checksum is wrong"));
    wrong[148..156].copy_from_slice(b"99999999");
    corpus.bytes("no checksum", &wrong, &damaged(0, "a header's checksum is wrong"));
    for (cut, at, what) in [
        (1, 0, "it ends within a header"),
        (511, 0, "it ends within a header"),
        (513, 513, "it ends within a file"),
        (1023, 1023, "it ends within a file"),
    ] {
        corpus.bytes(&format!("cut at {cut}"), &whole[..cut], &damaged(at, what));
    }
    let pax = Tar::default().pax("path", "a").0;
    corpus.bytes("cut in pax", &pax[..515], &damaged(512, "it ends within an extended header"));
    corpus.bytes("no end", &whole, "f a");
    corpus.bytes("half an end", &[&whole[..], &[0; 512]].concat(), "f a");
    corpus.bytes("nothing", b"", "");
    // One block of zeros ends an archive for every reader of layers; what follows counts for the digest only.
    let second = Tar::default().file("second", "").0;
    corpus.bytes("second archive", &[&whole[..], &[0; 1024], &second].concat(), "f a");
    corpus.bytes("second archive after one block", &[&whole[..], &[0; 512], &second].concat(), "f a");
    let ground = Ground::new();
    let bytes = [&whole[..], &[0; 1024], &second, b"rubbish"].concat();
    assert_eq!(ground.unpack_bytes(&bytes, &Limits::default()).unwrap().bytes, bytes.len() as u64);
}
