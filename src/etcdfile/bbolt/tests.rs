//! What is written is read, and whatever else there is to read is judged.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::disk::{Directory, DiskFile, MemoryDirectory, MemoryFile};

type Contents = BTreeMap<Bytes, BTreeMap<Bytes, Bytes>>;

fn file() -> (MemoryDirectory, MemoryFile) {
    let directory = MemoryDirectory::default();
    let file = directory.create("db").unwrap();
    (directory, file)
}

fn written(contents: &Contents) -> (MemoryDirectory, MemoryFile) {
    let (directory, file) = file();
    let mut writer = Writer::new(file);
    for (name, rows) in contents {
        writer.bucket(name.clone()).unwrap();
        for (key, value) in rows {
            writer.put(key.clone(), value.clone()).unwrap();
        }
    }
    let Written { file, bytes } = writer.finish().unwrap();
    assert_eq!(file.size().unwrap(), bytes);
    (directory, file)
}

fn read(file: MemoryFile) -> Result<Vec<Row>, BboltError> {
    Reader::open(file)?.rows()?.collect()
}

fn rows_of(contents: &Contents) -> Vec<Row> {
    let rows = contents.iter().flat_map(|(bucket, rows)| {
        rows.iter().map(|(key, value)| Row { bucket: bucket.clone(), key: key.clone(), value: value.clone() })
    });
    rows.collect()
}

fn bucket(rows: impl IntoIterator<Item = (Bytes, Bytes)>) -> Contents {
    Contents::from([(Bytes::from_static(b"key"), rows.into_iter().collect())])
}

/// Numbered rows, enough of them for several levels of branches.
fn many(count: u32, value: &[u8]) -> Contents {
    let key = |number: u32| Bytes::from(format!("{number:0>40}"));
    bucket((0..count).map(|number| (key(number), Bytes::copy_from_slice(value))))
}

/// Keys and values of all sizes: mostly small ones, some that fill a page or many.
fn sized() -> impl Strategy<Value = (Bytes, Bytes)> {
    let length = prop_oneof![8 => 0..40_usize, 2 => 900..5_000_usize, 1 => 20_000..300_000_usize];
    let key = prop_oneof![9 => 1..30_usize, 1 => 3_000..9_000_usize];
    (any::<[u8; 4]>(), key, length, any::<u8>()).prop_map(|(start, key, length, fill)| {
        let mut bytes = start.to_vec();
        bytes.resize(key.max(1), fill);
        (bytes.into(), vec![fill; length].into())
    })
}

fn contents() -> impl Strategy<Value = Contents> {
    let rows = prop_oneof![3 => prop::collection::btree_map(any::<[u8; 1]>(), any::<[u8; 9]>(), 0..9).prop_map(small),
        2 => prop::collection::vec(sized(), 0..60).prop_map(|rows| rows.into_iter().collect())];
    prop::collection::btree_map("[a-z]{1,9}".prop_map(Bytes::from), rows, 0..12)
}

fn small(rows: BTreeMap<[u8; 1], [u8; 9]>) -> BTreeMap<Bytes, Bytes> {
    rows.into_iter().map(|(key, value)| (key.to_vec().into(), value.to_vec().into())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_written_is_read(contents in contents()) {
        let (_, file) = written(&contents);
        let reader = Reader::open(file).unwrap();
        prop_assert_eq!(reader.bucket_names().unwrap(), contents.keys().cloned().collect::<Vec<_>>());
        let rows = reader.rows().unwrap().collect::<Result<Vec<_>, _>>().unwrap();
        prop_assert_eq!(rows, rows_of(&contents));
        for (name, rows) in &contents {
            let found = reader.bucket(name).unwrap().map(|row| row.map(|row| (row.key, row.value)));
            prop_assert_eq!(&found.collect::<Result<BTreeMap<_, _>, _>>().unwrap(), rows);
        }
    }

    #[test]
    fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..9_000)) {
        let (_, file) = file();
        file.write_at(&bytes, 0).unwrap();
        prop_assert!(matches!(read(file), Err(BboltError::NoMeta)));
    }

    /// The meta pages stay sound, so that the damage is met where the tree is walked.
    #[test]
    fn damage_ends_in_rows_or_an_error(
        changes in prop::collection::vec((8_192..120_000_usize, 0..16_usize, any::<u8>()), 1..20),
    ) {
        let contents = many(1_500, &[7; 20]);
        let (directory, file) = written(&contents);
        let size = usize::try_from(file.size().unwrap()).unwrap();
        for (at, low, mask) in changes {
            // Half of the damage goes where headers and tables are.
            let at = if low < 8 { at / 4_096 * 4_096 + low * 2 } else { at } % size;
            directory.corrupt("db", at.max(8_192), |byte| byte ^ mask);
        }
        let count = Reader::open(file).unwrap().rows().map_or(0, |rows| rows.map_while(Result::ok).count());
        prop_assert!(count <= 1_500 * 2);
    }
}

#[test]
fn tree_of_several_levels_is_read() {
    let contents = many(40_000, b"v");
    let (_, file) = written(&contents);
    assert_eq!(read(file).unwrap(), rows_of(&contents));
}

#[test]
fn long_keys_make_branches_longer_than_a_page() {
    let key = |number: u8| Bytes::from([vec![number], vec![b'k'; KEY_BYTES_MAX - 1]].concat());
    let contents = bucket((0..=255).map(|number| (key(number), Bytes::new())));
    let (_, file) = written(&contents);
    assert_eq!(read(file).unwrap(), rows_of(&contents));
}

#[test]
fn values_of_many_pages_are_read_by_themselves() {
    let rows = (0..5_u8).map(|number| (Bytes::from(vec![number + 1]), Bytes::from(vec![number; 3 << 20])));
    let contents = bucket(rows);
    let (_, file) = written(&contents);
    assert_eq!(read(file).unwrap(), rows_of(&contents));
}

#[test]
fn small_buckets_lie_inside_the_page_that_tells_of_them() {
    let (_, file) = written(&Contents::from([("meta".into(), small([([1], [2; 9])].into()))]));
    assert_eq!(file.size().unwrap(), 3 * PAGE_BYTES as u64);
}

#[test]
fn rows_that_bbolt_would_not_take_are_refused() {
    let refusal = |keys: &[&[u8]]| {
        let mut writer = Writer::new(file().1);
        writer.bucket("key").unwrap();
        let mut puts = keys.iter().map(|key| writer.put(Bytes::copy_from_slice(key), Bytes::new()));
        puts.find_map(Result::err).unwrap().to_string()
    };
    let above = "row a of bucket key cannot be written: it is not above the one before it";
    assert_eq!(refusal(&[b"b", b"a"]), above);
    assert_eq!(refusal(&[b"a", b"a"]), above);
    assert!(refusal(&[b""]).contains("1 to 32768"));
    assert!(refusal(&[&vec![b'x'; KEY_BYTES_MAX + 1]]).contains("1 to 32768"));
    let mut writer = Writer::new(file().1);
    writer.bucket("key").unwrap();
    writer.bucket("auth").unwrap();
    assert!(writer.finish().unwrap_err().to_string().contains("not above"));
}

#[test]
fn second_meta_counts_when_the_first_is_damaged() {
    let contents = many(10, b"v");
    let (directory, file) = written(&contents);
    directory.corrupt("db", 20, |byte| byte ^ 1);
    assert_eq!(read(file).unwrap(), rows_of(&contents));
}

#[test]
fn file_that_ends_early_is_refused() {
    let (_, file) = written(&many(1_000, b"v"));
    let size = file.size().unwrap();
    file.set_size(size - 1).unwrap();
    assert!(matches!(read(file), Err(BboltError::Truncated { have, need }) if (have, need) == (size - 1, size)));
}

#[test]
fn bytes_behind_the_pages_are_not_looked_at() {
    let contents = many(10, b"v");
    let (_, file) = written(&contents);
    let size = file.size().unwrap();
    file.write_at(&[0xff; 32], size).unwrap();
    assert_eq!(read(file).unwrap(), rows_of(&contents));
}

/// What is found in a file of one leaf (page 2) and its root (page 3) after `damage`.
fn finding(damage: impl FnOnce(&mut dyn FnMut(usize, &[u8]))) -> String {
    let (_, file) = written(&many(30, b"v"));
    damage(&mut |at, bytes| file.write_at(bytes, at as u64).unwrap());
    read(file).unwrap_err().to_string()
}

#[test]
fn damage_is_named() {
    const LEAF: usize = 2 * PAGE_BYTES;
    const ROOT: usize = 3 * PAGE_BYTES;
    const BUCKET: usize = ROOT + 32 + 3;
    assert!(finding(|put| put(LEAF, &[9])).contains("page 2 of the database file is damaged: it carries the number"));
    assert!(finding(|put| put(LEAF + 8, &[4])).contains("neither a branch nor a leaf"));
    assert!(finding(|put| put(LEAF + 10, &[0xff, 0xff])).contains("shorter than its table"));
    assert!(finding(|put| put(LEAF + 12, &[9])).contains("longer than the file"));
    assert!(finding(|put| put(LEAF + 20, &[0xff, 0xff])).contains("outside of it"));
    assert!(finding(|put| put(LEAF + 20, &[1, 0])).contains("outside of it"));
    assert!(finding(|put| put(LEAF + 24, &[0, 0, 1])).contains("impossible length"));
    assert!(finding(|put| put(LEAF + 16, &[1])).contains("a bucket inside a bucket"));
    assert!(finding(|put| put(LEAF + 16 + 30 * 16, b"9")).contains("do not ascend"));
    assert!(finding(|put| put(ROOT + 16, &[0])).contains("a row outside of any bucket"));
    assert!(finding(|put| put(BUCKET, &[3])).contains("pointed at twice"));
    assert!(finding(|put| put(BUCKET, &[1])).contains("not among the pages"));
    assert!(finding(|put| put(BUCKET, &[77])).contains("not among the pages"));
    assert!(finding(|put| put(BUCKET, &[0])).contains("inline bucket"));
}

#[test]
fn tree_that_points_at_itself_ends() {
    // A branch page whose only child is the page itself.
    let (_, file) = written(&many(30, b"v"));
    let at = 2 * PAGE_BYTES as u64;
    file.write_at(&[1, 0, 1, 0], at + 8).unwrap();
    file.write_at(&[16, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0], at + 16).unwrap();
    assert!(read(file).unwrap_err().to_string().contains("pointed at twice"));
}
