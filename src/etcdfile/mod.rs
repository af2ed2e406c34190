//! Files in etcd's formats: its database (`db`, a bbolt file), snapshot metadata files (`.snap`) and the v2 JSON they carry.
//!
//! The replicated state lives elsewhere. A database is how it comes from an etcd or goes to one; a `.snap` file tells
//! etcd's tools, and an etcd that takes the directory over, where the log may be read from and who the members are.

pub mod bbolt;
pub mod database;
pub mod part;
pub mod snap;
pub mod summary;
pub mod v2json;
