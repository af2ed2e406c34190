//! What does it cost to take a state over from etcd's database, and to hand it on as one?
//!
//! Two million rows of one kilobyte, a quarter of them overwritten versions, on disk: a file of 2 GB. Prints rows in a
//! second and the greatest memory so far. A number as argument is another count of rows: `cargo bench --bench exchange --
//! 100000`. `EXCHANGE_DIR` names the directory for the files.

#![expect(clippy::disallowed_methods, reason = "a bench asks the machine's clock")]

use std::{path::Path, time::Instant};

use bytes::Bytes;
use nix::sys::resource::{UsageWho, getrusage};
use prost::Message as _;
use quorate::{
    apply::{Applier, ApplyOptions, exchange},
    disk::{Directory, FileDirectory, OpenFile},
    etcdfile::{bbolt, database},
    membership::Version,
    pb::mvccpb::KeyValue,
    storage::{FjallEngine, FjallOptions, sorter::SORT_BYTES_DEFAULT},
    types::{ClusterId, MemberId},
};

const ROWS: u64 = 2_000_000;
const VALUE_BYTES: usize = 960;
const OWN: Version = Version::minor(3, 7);

fn main() {
    let rows = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(ROWS);
    let parent = std::env::var_os("EXCHANGE_DIR").map_or_else(std::env::temp_dir, Into::into);
    let home = tempfile::tempdir_in(parent).expect("a directory");
    let directory = FileDirectory::new(home.path());
    let bytes = timed("write a database", rows, || write(directory.create("etcd.db").expect("a file"), rows));
    println!("{} MiB", bytes >> 20);
    let applier = timed("import it", rows, || import(&directory, home.path()));
    let file = directory.create("export.db").expect("a file");
    let written = timed("export it", rows, || exchange::export(&applier.published(), file).expect("a sound state"));
    let reader = bbolt::Reader::open(written.file).expect("a sound file");
    timed("hash the export", rows, || database::hash(&reader).expect("a sound file"));
}

fn timed<T>(what: &str, rows: u64, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let done = work();
    let seconds = started.elapsed().as_secs_f64();
    let memory = getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| usage.max_rss());
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    let rate = rows as f64 / seconds;
    println!("{what:<20} {seconds:>8.2} s {rate:>12.0} rows/s {:>6} MiB at most", memory >> 10);
    done
}

/// Keys are scattered over the key space; the last quarter of the changes writes old keys again.
fn write(file: OpenFile, rows: u64) -> u64 {
    let mut writer = bbolt::Writer::new(file);
    let keys = rows / 4 * 3;
    for bucket in database::Bucket::ALL {
        writer.bucket(bucket.name()).expect("ascending names");
        match bucket {
            database::Bucket::Key => (0..rows).for_each(|number| put(&mut writer, number, keys)),
            database::Bucket::Meta => {
                for name in [database::INDEX_KEY, database::TERM_KEY] {
                    let value = Bytes::copy_from_slice(&9_u64.to_be_bytes());
                    writer.put(name.into(), value).expect("written");
                }
            }
            _ => {}
        }
    }
    writer.finish().expect("written").bytes
}

fn put(writer: &mut bbolt::Writer<OpenFile>, number: u64, keys: u64) {
    let main = 2 + i64::try_from(number).unwrap_or(i64::MAX);
    let (create, version) = if number < keys { (main, 1) } else { (main - i64::try_from(keys).unwrap_or(0), 2) };
    let scattered = (number % keys.max(1)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let pair = KeyValue {
        key: format!("/registry/{scattered:016x}").into(),
        create_revision: create,
        mod_revision: main,
        version,
        value: (0..VALUE_BYTES as u64 / 8).flat_map(|word| (word * number).to_le_bytes()).collect(),
        lease: 0,
    };
    let row_key = [main.to_be_bytes().as_slice(), b"_", &0_i64.to_be_bytes()].concat();
    writer.put(row_key.into(), pair.encode_to_vec().into()).expect("written");
}

fn import(directory: &FileDirectory, home: &Path) -> Applier<FjallEngine> {
    let engine = FjallEngine::open(&home.join("state"), &FjallOptions::default()).expect("an empty state");
    let options = exchange::ImportOptions {
        configuration: None,
        cluster: ClusterId(1),
        server_version: OWN,
        index: None,
        memory_bytes: SORT_BYTES_DEFAULT,
    };
    let file = directory.open("etcd.db").expect("the file just written");
    exchange::import(file, &engine, directory, &options).expect("a sound database");
    let options = ApplyOptions {
        member: MemberId(1),
        server_version: OWN,
        lease_ttl_min: 2,
        learners_max: Some(1),
        quota_bytes: None,
    };
    Applier::open(engine, options).expect("a sound state")
}
