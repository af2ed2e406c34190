//! What `--version`, `--help` and a wrong flag print, in etcd's shape, out of the table.

use super::{
    Compat,
    gates::{GATES, Gate},
    table::{Group, OPTIONS, OptionSpec},
};

/// What `--version` prints: etcd's four lines. Called by its own name, the binary says in front what it is.
pub fn version_text(compat: Compat, called_as_etcd: bool) -> String {
    let own = env!("CARGO_PKG_VERSION");
    let first = if called_as_etcd { String::new() } else { format!("quorate Version: {own}\n") };
    format!(
        "{first}etcd Version: {}\nGit SHA: quorate-{own}\nGo Version: none (Rust)\nGo OS/Arch: {}/{}\n",
        compat.version(),
        std::env::consts::OS,
        go_arch()
    )
}

/// The architecture by Go's name.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// The short usage, which also follows a mistake on the command line.
pub fn usage_text(program: &str) -> String {
    let name = std::path::Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or("quorate");
    format!(
        "Usage:

  {name} [flags]
    Start a server.

  {name} --version
    Show the version.

  {name} -h | --help
    Show every flag.

  {name} --config-file FILE
    Start with etcd's YAML or JSON file alone: other flags and environment variables are ignored.

  {name} --config FILE.toml --env-file FILE
    Start with files below environment variables and flags.

  {name} config check [--deep] [--format text|json] [flags]
    Check the configuration without starting.

  {name} config check FILE...
    Check whether the files of several members form one cluster.

  {name} config show [--origin] [--set] [--format toml|env|yaml|flags|json] [flags]
    Print the effective configuration.

  {name} config sample [--format toml|env]
    Print a file that names every option with its default, commented out.

  {name} config convert --to env|toml|yaml|json|flags [FILE] [flags]
    Print what is set in another form.

  {name} config schema
    Print a JSON Schema of the TOML file.
"
    )
}

/// The long list of flags.
pub fn help_text() -> String {
    let sections: String = Group::ALL.into_iter().map(section).collect();
    format!("{sections}\nCAUTIOUS with unsafe flags: they may break the guarantees given by the consensus protocol.\n")
}

fn section(group: Group) -> String {
    let specs = OPTIONS.iter().filter(|spec| spec.group == group);
    let entry = |spec: &OptionSpec| format!("  --{} {}\n    {}\n", spec.name, shown_default(spec), described(spec));
    let entries: String = specs.map(entry).collect();
    format!("\n{}:\n{entries}", group.title())
}

fn shown_default(spec: &OptionSpec) -> String {
    match spec.name {
        "data-dir" => "'${name}.etcd'".to_owned(),
        _ => format!("'{}'", spec.default),
    }
}

/// The help, its unit, and for gates their names.
pub(crate) fn described(spec: &OptionSpec) -> String {
    let unit = spec.unit.name().map(|unit| format!(" Unit: {unit}."));
    let before = spec.default_before.map(|(compat, default)| format!(" Before {}: '{default}'.", compat.minor()));
    let gates = if spec.name == "feature-gates" { gate_lines() } else { String::new() };
    format!("{}{}{}{gates}", spec.help, unit.unwrap_or_default(), before.unwrap_or_default())
}

fn gate_lines() -> String {
    let line = |gate: &Gate| {
        let (name, stage, on) = (gate.name, gate.stage.name(), gate.stage.is_on());
        format!("\n    {name}=true|false ({stage} - default={on})")
    };
    GATES.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcds_version_line_comes_first_under_etcds_name() {
        let text = version_text(Compat::V3_7, true);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.first(), Some(&"etcd Version: 3.7.1"));
        assert!(lines.len() == 4 && lines[1].starts_with("Git SHA: ") && lines[3].starts_with("Go OS/Arch: linux/"));
        assert!(version_text(Compat::V3_5, false).contains("\netcd Version: 3.5.30\n"));
    }

    #[test]
    fn defaults_that_depend_on_others_are_told() {
        let told = OPTIONS.iter().find(|spec| spec.name == "discovery-fallback").map(described).expect("an option");
        assert!(told.ends_with("With --discovery the default is always 'proxy'. Before 3.6: 'proxy'."), "{told}");
    }

    #[test]
    fn help_names_every_option_once() {
        let help = help_text();
        for spec in OPTIONS {
            let lines = help.lines().filter(|line| line.starts_with(&format!("  --{} '", spec.name)));
            assert_eq!(lines.count(), 1, "{}", spec.name);
        }
    }
}
