//! Users, roles and permissions: the requests about them, and who makes the others.
//!
//! Passwords cost each side a twentieth of a second, so users are asked for only now and then.

use crate::exchange::{Answer, Ask};
use crate::support::random::Random;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The password of every user, until it is changed.
const PASSWORD: &str = "secret";
const USERS: [&str; 5] = ["root", "u1", "u2", "_hidden", "u 3"];
const ROLES: [&str; 6] = ["r1", "r2", "guest", "root", "_r", "nothing"];
const PATTERNS: [&str; 9] = ["/*", "/a", "/a*", "/a/*", "/b/c", "*", "/", "/_h/*", "no/slash"];

/// What the generator knows of users.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    enabled: bool,
}

impl Accounts {
    /// Whether requests are checked.
    pub(crate) fn enabled(&self) -> bool {
        self.enabled
    }

    pub(crate) fn learn(&mut self, ask: &Ask, answer: &Answer) {
        if ask.target == "/v2/auth/enable" && answer.status == 200 {
            match ask.method {
                "PUT" => self.enabled = true,
                "DELETE" => self.enabled = false,
                _ => {}
            }
        }
    }

    /// The way out, by the one who can: root, whose password is never changed.
    pub(crate) fn disable() -> Ask {
        signed_as(Ask::new("DELETE", "/v2/auth/enable"), "root", PASSWORD)
    }

    /// With somebody's name, now and then, while requests are checked.
    pub(crate) fn sign(&self, random: &mut Random, ask: Ask) -> Ask {
        if !self.enabled {
            // Nobody looks at it.
            return if random.chance(1) { signed_as(ask, "nobody", "x") } else { ask };
        }
        match random.below(100) {
            0..80 => ask,
            80..88 => signed_as(ask, "root", PASSWORD),
            88..94 => signed_as(ask, *random.pick(&USERS), PASSWORD),
            94..96 => signed_as(ask, *random.pick(&USERS), "wrong"),
            96 => signed_as(ask, "nobody", PASSWORD),
            97 => signed_as(ask, "u1", "pass:word"),
            _ => {
                let odd = [
                    "Basic",
                    "Basic ",
                    "Basic !!!",
                    "Bearer cm9vdDpzZWNyZXQ=",
                    "basic cm9vdDpzZWNyZXQ=",
                    "Basic cm9vdA==",
                ];
                ask.with_header("Authorization", *random.pick(&odd))
            }
        }
    }

    /// A request about users, roles or the switch.
    pub(crate) fn next(&self, random: &mut Random) -> Ask {
        let ask = match random.below(100) {
            0..6 => return self.by_root(random, Ask::new("GET", "/v2/auth/enable")),
            6..12 => Ask::new("PUT", "/v2/auth/enable"),
            12..15 => Ask::new("DELETE", "/v2/auth/enable"),
            15..20 => Ask::new("GET", *random.pick(&["/v2/auth/users", "/v2/auth/users/"])),
            20..26 => Ask::new("GET", *random.pick(&["/v2/auth/roles", "/v2/auth/roles/"])),
            26..32 => Ask::new("GET", &user_path(random)),
            32..38 => Ask::new("GET", &role_path(random)),
            38..58 => user(random),
            58..80 => role(random),
            80..86 => Ask::new("DELETE", &user_path(random)),
            86..92 => Ask::new("DELETE", &role_path(random)),
            92..96 => Ask::new(
                *random.pick(&["POST", "PATCH", "HEAD"]),
                *random.pick(&["/v2/auth/users", "/v2/auth/users/u1", "/v2/auth/roles/r1", "/v2/auth/enable"]),
            ),
            _ => Ask::new(
                "GET",
                *random.pick(&["/v2/auth/users/a/b", "/v2/auth/roles/a/b", "/v2/auth/users/..", "/v2/auth/users//u1"]),
            ),
        };
        self.by_root(random, ask)
    }

    /// Mostly by root, because others are refused.
    fn by_root(&self, random: &mut Random, ask: Ask) -> Ask {
        if self.enabled && random.chance(80) { signed_as(ask, "root", PASSWORD) } else { ask }
    }
}

fn user(random: &mut Random) -> Ask {
    let name = if random.chance(30) { "root" } else { *random.pick(&USERS) };
    let ask = Ask::new("PUT", &format!("/v2/auth/users/{}", name.replace(' ', "%20")));
    let role = *random.pick(&ROLES);
    let password = if name == "u1" && random.chance(30) { "pass:word" } else { PASSWORD };
    let body = match random.below(20) {
        0..8 => format!(r#"{{"user":"{name}","password":"{password}"}}"#),
        8..10 => format!(r#"{{"user":"{name}","password":"{password}","roles":["{role}","r1"]}}"#),
        10..13 => format!(r#"{{"user":"{name}","grant":["{role}"]}}"#),
        13..15 => format!(r#"{{"user":"{name}","revoke":["{role}"]}}"#),
        15 => format!(r#"{{"user":"{name}"}}"#),
        16 => format!(r#"{{"USER":"{name}","Grant":["{role}"],"revoke":["r2"],"password":null}} trailing"#),
        17 => format!(r#"{{"user":"{name}","roles":["r1"],"grant":["r2"]}}"#),
        18 => format!(r#"{{"user":"other{name}","password":"x"}}"#),
        _ => (*random.pick(&BROKEN)).to_owned(),
    };
    // The type of the body is nobody's business here.
    if random.chance(50) { ask.with_body("application/json", body) } else { Ask { body: body.into(), ..ask } }
}

fn role(random: &mut Random) -> Ask {
    let name = *random.pick(&ROLES);
    let ask = Ask::new("PUT", &format!("/v2/auth/roles/{name}"));
    let (read, write) = (patterns(random), patterns(random));
    let kv = format!(r#"{{"kv":{{"read":{read},"write":{write}}}}}"#);
    let body = match random.below(20) {
        0..3 => format!(r#"{{"role":"{name}"}}"#),
        3..8 => format!(r#"{{"role":"{name}","permissions":{kv}}}"#),
        8..12 => format!(r#"{{"role":"{name}","grant":{kv}}}"#),
        12..16 => format!(r#"{{"role":"{name}","revoke":{kv}}}"#),
        16 => format!(r#"{{"role":"{name}","permissions":{kv},"grant":{{"kv":{{"read":["/x"],"write":null}}}}}}"#),
        17 => {
            format!(r#"{{"Role":"{name}","grant":null,"revoke":{{}},"permissions":{{"KV":{{"Read":["/<&>"]}}}}}}"#)
        }
        18 => format!(r#"{{"role":"other{name}"}}"#),
        _ => (*random.pick(&BROKEN)).to_owned(),
    };
    ask.with_body("application/json", body)
}

const BROKEN: [&str; 10] = [
    "",
    "{",
    "null",
    "[]",
    "\"root\"",
    "{\"user\":1,\"role\":1}",
    "{\"user\":\"u1\",\"roles\":\"r1\"}",
    "{\"role\":\"r1\",\"permissions\":[]}",
    "{\"user\":\"u1\",}",
    "{\"role\":\"r1\",\"grant\":{\"kv\":{\"read\":[1]}}}",
];

fn patterns(random: &mut Random) -> String {
    match random.below(6) {
        0 => "null".to_owned(),
        1 => "[]".to_owned(),
        2 => format!("[\"{}\",\"{}\"]", *random.pick(&PATTERNS), *random.pick(&PATTERNS)),
        _ => format!("[\"{}\"]", *random.pick(&PATTERNS)),
    }
}

fn user_path(random: &mut Random) -> String {
    format!("/v2/auth/users/{}", random.pick(&USERS).replace(' ', "%20"))
}

fn role_path(random: &mut Random) -> String {
    format!("/v2/auth/roles/{}", *random.pick(&ROLES))
}

fn signed_as(ask: Ask, name: &str, password: &str) -> Ask {
    ask.with_header("Authorization", &format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))))
}
