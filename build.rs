//! Compiles `proto/` with protox, so that building needs no system `protoc`.

use std::path::PathBuf;

const FILES: [&str; 10] = [
    "authpb.proto",
    "etcdserverpb.proto",
    "leasepb.proto",
    "membershippb.proto",
    "mvccpb.proto",
    "quorate.proto",
    "raftpb.proto",
    "v3electionpb.proto",
    "v3lockpb.proto",
    "walpb.proto",
];

/// Messages with passwords, hashes or tokens in them: `pb::secret` says how they are shown.
const SECRET: [&str; 6] = [
    ".authpb.User",
    ".etcdserverpb.AuthUserAddRequest",
    ".etcdserverpb.AuthUserChangePasswordRequest",
    ".etcdserverpb.AuthenticateRequest",
    ".etcdserverpb.AuthenticateResponse",
    ".etcdserverpb.InternalAuthenticateRequest",
];

/// Packages whose messages the JSON gateway speaks.
const JSON_PACKAGES: [&str; 6] = [".etcdserverpb", ".mvccpb", ".membershippb", ".authpb", ".v3electionpb", ".v3lockpb"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR for build scripts")?);
    let descriptors = protox::compile(FILES, ["proto"])?;
    let encoded = prost::Message::encode_to_vec(&descriptors);
    std::fs::write(out.join("descriptors.bin"), &encoded)?;
    tonic_prost_build::configure().bytes(".").skip_debug(SECRET).compile_fds(descriptors)?;
    pbjson_build::Builder::new()
        .register_descriptors(&encoded)?
        .preserve_proto_field_names()
        .ignore_unknown_fields()
        .build(&JSON_PACKAGES)?;
    Ok(())
}
