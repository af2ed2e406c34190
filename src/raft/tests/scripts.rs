//! Stories of whole groups, as plain text: commands, `---`, and the events they lead to.
//!
//! With `UPDATE_SCRIPTS=1` the events are written anew; read the difference before committing it.

use std::{collections::BTreeMap, fs, path::Path};

use crate::{pb::raftpb::ConfChangeType, raft::Input, types::MemberId};

use super::world::World;

struct Script {
    world: World,
    output: Vec<String>,
}

/// The positional words and the `key=value` words of a command.
struct Words<'a> {
    plain: Vec<&'a str>,
    named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Self {
        let named = |word: &&str| word.contains('=');
        let words = line.split_whitespace();
        Self {
            plain: words.clone().filter(|word| !named(word)).collect(),
            named: words.filter_map(|word| word.split_once('=')).collect(),
        }
    }

    fn member(&self) -> u64 {
        self.plain[1].parse().unwrap()
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.named.get(key).map(|value| value.parse().unwrap())
    }
}

impl Script {
    fn run(commands: &str) -> String {
        let mut script = Self { world: World::new(0, 1), output: Vec::new() };
        for line in commands.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            script.command(line);
            let events = std::mem::take(&mut script.world.events);
            script.output.push(format!("> {line}"));
            script.output.extend(events);
        }
        script.output.join("\n") + "\n"
    }

    fn command(&mut self, line: &str) {
        let words = Words::of(line);
        let world = &mut self.world;
        match words.plain[0] {
            "cluster" => {
                *world = World::new(0, words.number("members").unwrap());
                world.settle();
                world.events.clear();
            }
            "keep" => world.kept_bytes_max = usize::try_from(words.number("bytes").unwrap()).unwrap(),
            "campaign" => world.input(words.member(), Input::Campaign),
            "propose" => (0..words.number("n").unwrap_or(1)).for_each(|_| world.propose(words.member())),
            "read" => world.read(words.member()),
            "transfer" => {
                let to = MemberId(words.number("to").unwrap());
                world.input(words.member(), Input::TransferLeader(to));
            }
            "join" => world.join(words.member()),
            "change" => change(world, &words),
            "crash" => world.crash(words.member()),
            "start" => world.start(words.member()),
            "stall" => world.nodes.get_mut(&words.member()).unwrap().stalled = true,
            "unstall" => world.nodes.get_mut(&words.member()).unwrap().stalled = false,
            "persist" => world.persist_machine(words.member(), words.number("keep").unwrap()),
            "partition" => partition(world, line),
            "heal" => world.partition.clear(),
            "tick" => tick(world, &words),
            "applied" => applied(world),
            other => panic!("unknown command {other}"),
        }
        self.world.settle();
    }
}

fn change(world: &mut World, words: &Words<'_>) {
    let (kind, node) = words.named.iter().next().unwrap();
    let kind = match *kind {
        "add" => ConfChangeType::ConfChangeAddNode,
        "learner" => ConfChangeType::ConfChangeAddLearnerNode,
        "update" => ConfChangeType::ConfChangeUpdateNode,
        "remove" => ConfChangeType::ConfChangeRemoveNode,
        other => panic!("unknown change {other}"),
    };
    world.propose_change(words.member(), kind, node.parse().unwrap());
}

fn partition(world: &mut World, line: &str) {
    let groups = line.trim_start_matches("partition").split('|');
    let members = |group: &str| group.split_whitespace().map(|word| word.parse().unwrap()).collect();
    world.partition = groups.map(members).collect();
}

fn tick(world: &mut World, words: &Words<'_>) {
    let ids = if words.plain.len() > 1 { vec![words.member()] } else { world.ids() };
    for _ in 0..words.number("n").unwrap_or(1) {
        world.tick(&ids);
        world.settle();
    }
}

fn applied(world: &mut World) {
    for (id, node) in &world.nodes {
        let machine = &node.machine;
        world.events.push(format!("m{id}: applied {}, {} payloads", machine.applied, machine.payloads.len()));
    }
}

#[test]
fn scripts_tell_what_happens() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/raft/testscripts");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let (commands, expected) = text.split_once("---\n").unwrap_or((&text, ""));
        let actual = Script::run(commands);
        if std::env::var_os("UPDATE_SCRIPTS").is_some() {
            fs::write(&path, format!("{commands}---\n{actual}")).unwrap();
        } else {
            assert_eq!(actual, expected, "{}", path.display());
        }
    }
}
