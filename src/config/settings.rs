//! The effective value of every current option, with its origin: what `config show` prints and a reload compares.

use super::{
    BootstrapMethod, Compat, Config, Origin, Value,
    layers::Layers,
    table::{Kind, OPTIONS, OptionSpec},
    url::Url,
};

/// One option's effective value.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// The option.
    pub spec: &'static OptionSpec,
    /// Its value.
    pub value: Value,
    /// Where it was written.
    pub origin: Origin,
    /// Whether some layer sets it, be it to its default.
    pub is_set: bool,
}

/// All current options, in the order of the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// One per current option.
    pub all: Vec<Setting>,
    /// The version whose defaults hold.
    pub compat: Compat,
}

impl Settings {
    /// Takes the effective values from the layers, and what `config` made of those that were left open.
    pub(super) fn of(layers: &Layers, config: &Config) -> Self {
        let current = OPTIONS.iter().filter(|spec| spec.is_current());
        let setting = |spec: &'static OptionSpec| match spec.kind {
            Kind::Gates => gates(spec, layers),
            _ => Setting {
                spec,
                value: derived(spec, config)
                    .filter(|_| !layers.is_set(spec.name))
                    .unwrap_or_else(|| layers.value(spec)),
                origin: layers.origin(spec.name),
                is_set: layers.is_set(spec.name),
            },
        };
        Self { all: current.map(setting).collect(), compat: layers.compat }
    }

    /// One option's setting.
    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.all.iter().find(|setting| setting.spec.name == name)
    }
}

/// The value that follows from other options when none is given.
fn derived(spec: &OptionSpec, config: &Config) -> Option<Value> {
    let urls = |urls: &[Url]| Some(Value::List(urls.iter().map(Url::to_string).collect()));
    match (spec.name, &config.bootstrap.method) {
        ("data-dir", _) => Some(Value::Text(config.member.data_dir.to_string_lossy().into_owned())),
        ("initial-cluster", BootstrapMethod::Static(cluster)) => Some(Value::Text(cluster.to_string())),
        ("initial-cluster", _) => Some(Value::Text(String::new())),
        ("discovery-fallback", BootstrapMethod::DiscoveryV2 { fall_back_to_proxy, .. }) => {
            Some(Value::Text(if *fall_back_to_proxy { "proxy" } else { "exit" }.to_owned()))
        }
        ("initial-advertise-peer-urls", _) => urls(&config.advertise.peer),
        ("advertise-client-urls", _) => urls(&config.advertise.client),
        _ => None,
    }
}

/// Gates under all their names, as one value.
fn gates(spec: &'static OptionSpec, layers: &Layers) -> Setting {
    let words = layers.chosen_gates().into_iter().map(|(gate, on)| format!("{gate}={on}")).collect();
    let old = layers.old_gates();
    let origin = match layers.origin(spec.name) {
        Origin::Default => old.first().map_or(Origin::Default, |(.., origin)| origin.clone()),
        origin => origin,
    };
    let is_set = layers.is_set(spec.name) || !old.is_empty();
    Setting { spec, value: Value::List(words), origin, is_set }
}
