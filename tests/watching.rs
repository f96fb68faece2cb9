//! What watches a cluster against what the programs expose: the dashboard, the rules and the documentation name metrics and labels that exist,
//! and every metric that exists is documented.
//!
//! The names are read from the text that the programs answer Prometheus with. Whether the rules are rules at all, and fire when they
//! should, is promtool's to say (`tests/scripts/watching_acceptance.sh`).

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Semaphore;
use woolly_coordinator::ids::LaneId;
use woolly_coordinator::metrics::{Metrics, render_snapshot};
use woolly_protocol::ca::ClusterCa;
use woolly_protocol::control::{ForwardTiming, Heartbeat};
use woolly_protocol::identity::SigningRequest;
use woolly_protocol::ids::{MicrobatchId, PlanEpoch};
use woolly_tests::source::workspace_root;
use woolly_worker::metrics::text as worker;
use woolly_worker::peers::dial::Dialer;
use woolly_worker::peers::traffic::{PeerTraffic, Travelled};
use woolly_worker::stage::held::HeldStage;

/// Labels that Prometheus gives every series of a target.
const OF_THE_TARGET: [&str; 2] = ["job", "instance"];

/// A metric as it is exposed.
#[derive(Debug, Default)]
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
}

type Exposed = BTreeMap<String, Metric>;

/// What a text says of each metric. Series of histograms count as their histogram's, without `le`.
fn exposed(text: &str) -> Exposed {
    let mut metrics = Exposed::new();
    for line in text.lines().filter(|line| !line.starts_with("# HELP")) {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').unwrap();
            metrics.entry(name.to_owned()).or_default().kind = kind.to_owned();
            continue;
        }
        let series = line.rsplit_once(' ').unwrap().0;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let metric = metrics.get_mut(base(name, &metrics).unwrap().as_str()).unwrap();
        let named = labels.split("=\"").filter_map(|part| part.rsplit([',', '{', '"']).next());
        let named = named.filter(|label| !matches!(*label, "le" | "}" | ""));
        metric.labels.extend(named.map(str::to_owned));
    }
    metrics
}

/// The metric that a series is of.
fn base(series: &str, metrics: &Exposed) -> Option<String> {
    let ends = ["_bucket", "_sum", "_count"];
    let of = ends
        .iter()
        .filter_map(|end| series.strip_suffix(end))
        .find(|base| metrics.get(*base).is_some_and(|metric| metric.kind == "histogram"));
    of.or(metrics.contains_key(series).then_some(series)).map(str::to_owned)
}

/// All that a coordinator exposes, with a series of everything.
fn of_the_coordinator() -> Exposed {
    let metrics = Metrics::default();
    let timing = ForwardTiming { microbatch: MicrobatchId(1), ..ForwardTiming::default() };
    metrics.forward(0, &timing);
    metrics.loaded(LaneId(0), "m");
    metrics.plan(LaneId(0), vec![("w".to_owned(), 0..3)]);
    let heartbeat = Heartbeat {
        number: 1,
        echo: 1,
        microbatch: MicrobatchId(1),
        progress: 1,
        load_done: 0,
        load_total: 0,
        forwards: 1,
        mappings: 1,
        populated_bytes: 1,
        plans: Vec::new(),
    };
    metrics.worker("w", &heartbeat, Duration::ZERO);
    metrics.certificate("ca", 0);
    let mut text = metrics.render();
    let snapshot = json!({
        "at_ms": 0, "version": "0", "numerics": 1, "up_ms": 0, "events": [],
        "models": [{
            "model": "m", "state": "ready", "detail": "", "ctx_size": 1, "kv_type": "f16",
            "running": 0, "waiting": 0, "in_flight": 0, "preemptions": 0, "failovers": 0,
        }],
        "workers": [{
            "worker": "w", "worker_id": "1", "machine": "0", "address": "a:1", "state": "serving",
            "version": "0", "isa": "x", "local": false, "threads": 1, "read_bytes_per_s": 1,
            "read_1_bytes_per_s": 1, "barrier_ns": 1, "macs_per_s": 1,
            "memory": { "allowance": 2, "free": 1, "is_own": true, "models": [] },
            "heard": { "joined_ms_ago": 1, "heartbeat_ms_ago": 1, "hears_ms_ago": 1, "rtt_us": 1 },
        }],
    });
    render_snapshot(&mut text, &serde_json::from_value(snapshot).unwrap());
    exposed(&text)
}

/// All that a worker exposes, with a series of everything.
fn of_a_worker() -> Exposed {
    let told = worker::Exposed::default();
    let (clock, dir) = (SystemTime::now(), tempfile::tempdir().unwrap());
    let identity = {
        let ca = ClusterCa::open(dir.path(), clock).unwrap();
        let request = SigningRequest::new().unwrap();
        let (_, accepted) = ca.sign(request.der(), clock).unwrap();
        request.complete(&accepted, &ca.pin(), clock).unwrap()
    };
    told.dialer.set(Arc::new(Dialer::new(identity, Duration::from_secs(1)))).unwrap();
    let places = (Arc::new(Semaphore::new(1)), 1);
    let (layers, weights_bytes, kv_bytes, kv_blocks) = ((0, 1), 1, 1, 1);
    let stage = HeldStage { stage: 0, layers, weights_bytes, kv_bytes, kv_blocks, places };
    let _holding = told.held.begin(PlanEpoch(1), stage);
    let mut text = told.render();
    let peer = PeerTraffic {
        peer: "coordinator".to_owned(),
        travelled: Travelled::default(),
        connections: 1,
        round_trip: Some(Duration::from_millis(1)),
    };
    // Of connections that are there: in `render` there are none.
    worker::render_peers(&mut text, &[peer]);
    exposed(&text)
}

/// All that is exposed by anybody.
fn of_all() -> Exposed {
    let (mut all, of_a_worker) = (of_the_coordinator(), of_a_worker());
    for (name, metric) in of_a_worker {
        if let Some(known) = all.get(&name) {
            let shared = ["woolly_build_info", "woolly_certificate_expires_timestamp_seconds"];
            assert!(shared.contains(&name.as_str()), "{name} is exposed by both");
            assert_eq!((&known.kind, &known.labels), (&metric.kind, &metric.labels), "{name}");
        }
        all.insert(name, metric);
    }
    all
}

/// An expression of PromQL: the series that it names with the labels of their selectors, and the labels that it
/// groups and matches by.
#[derive(Debug, Default)]
struct Expression {
    series: Vec<(String, Vec<String>)>,
    labels: Vec<String>,
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | ':')
}

/// The words in `text` that stand before `=`, `!` or a comma, without what stands between quotes.
fn label_names(text: &str) -> Vec<String> {
    let bare: String = text.split('"').step_by(2).collect();
    let of_part = |part: &str| part.split(['=', '!']).next().unwrap_or_default().trim().to_owned();
    bare.split(',').map(of_part).filter(|label| !label.is_empty()).collect()
}

fn expression(text: &str) -> Expression {
    let mut found = Expression::default();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| is_word(c) || c == '"') {
        rest = &rest[at..];
        if let Some(quoted) = rest.strip_prefix('"') {
            rest = quoted.split_once('"').map_or("", |(_, rest)| rest);
            continue;
        }
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let after = after.trim_start();
        rest = after;
        if word.starts_with("woolly") || word == "up" {
            let selector = after.strip_prefix('{').and_then(|inside| inside.split_once('}'));
            let labels = selector.map(|(inside, _)| label_names(inside)).unwrap_or_default();
            rest = selector.map_or(after, |(_, rest)| rest);
            found.series.push((word.to_owned(), labels));
        } else if matches!(word, "by" | "on" | "group_left" | "group_right" | "without") {
            let inside = after.strip_prefix('(').and_then(|inside| inside.split_once(')'));
            let (inside, behind) = inside.unwrap_or_else(|| panic!("{word} of what? {text}"));
            found.labels.extend(label_names(inside));
            rest = behind;
        }
    }
    found
}

/// The labels that texts beside an expression show: `{{stage}}`, `{{ $labels.stage }}`.
fn shown_labels(text: &str) -> Vec<String> {
    let inside = text.split("{{").skip(1).filter_map(|part| part.split("}}").next());
    let of_one = |part: &str| {
        let part = part.trim();
        let label = part.strip_prefix("$labels.").or((!part.starts_with('$')).then_some(part))?;
        Some(label.to_owned())
    };
    inside.filter_map(of_one).collect()
}

/// Adds what is wrong with an expression: names that nobody exposes, labels that none of its series has.
fn check(place: &str, text: &str, beside: &str, metrics: &Exposed, wrong: &mut Vec<String>) {
    let expression = expression(text);
    if expression.series.is_empty() {
        wrong.push(format!("{place}: no metric in {text}"));
    }
    let mut known: BTreeSet<&str> = OF_THE_TARGET.into();
    known.insert("le");
    for (series, labels) in &expression.series {
        let Some(metric) = base(series, metrics).and_then(|base| metrics.get(&base)) else {
            wrong.push(format!("{place}: nobody exposes {series}"));
            continue;
        };
        known.extend(metric.labels.iter().map(String::as_str));
        for label in labels {
            if !metric.labels.contains(label) && !OF_THE_TARGET.contains(&label.as_str()) {
                wrong.push(format!("{place}: {series} has no label {label}"));
            }
        }
    }
    let named = expression.labels.iter().cloned().chain(shown_labels(beside));
    for label in named.filter(|label| !known.contains(label.as_str())) {
        wrong.push(format!("{place}: none of its series has the label {label}"));
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(workspace_root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// All that is exposed, and what the rules record of it.
fn all_metrics(rules: &[Rule]) -> Exposed {
    let mut metrics = of_all();
    for rule in rules.iter().filter(|rule| rule.kind == "record") {
        let named = expression(&rule.fields["expr"]).series;
        let of_one = |(name, _): &(String, _)| metrics.get(&base(name, &metrics)?);
        let labels = named.iter().filter_map(of_one).flat_map(|metric| metric.labels.clone());
        let metric = Metric { kind: "gauge".to_owned(), labels: labels.collect() };
        metrics.insert(rule.name.clone(), metric);
    }
    metrics
}

/// A rule: its fields by name, those of `labels` and `annotations` among them.
#[derive(Debug)]
struct Rule {
    kind: String,
    name: String,
    fields: BTreeMap<String, String>,
}

/// Reads the rules: of YAML what that file uses, which promtool reads as well.
fn rules() -> Vec<Rule> {
    let text = read("deploy/prometheus/rules.yml");
    let mut rules: Vec<Rule> = Vec::new();
    let mut lines = text.lines().filter(|line| !line.trim_start().starts_with('#')).peekable();
    while let Some(line) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        let Some((key, value)) = line.trim().split_once(':') else { continue };
        let value = value.trim();
        if let Some(kind @ ("alert" | "record")) = key.strip_prefix("- ") {
            let (kind, name) = (kind.to_owned(), value.to_owned());
            rules.push(Rule { kind, name, fields: BTreeMap::new() });
            continue;
        }
        let Some(rule) = rules.last_mut() else { continue };
        let mut value = value.trim_matches('"').to_owned();
        if value == "|" {
            let inside = |next: &&str| next.len() - next.trim_start().len() > indent;
            value.clear();
            while let Some(next) = lines.next_if(inside) {
                value += next.trim();
                value.push('\n');
            }
        }
        rule.fields.insert(key.to_owned(), value);
    }
    rules
}

fn assert_right(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
}

#[test]
fn the_dashboard_names_metrics_and_labels_that_exist() {
    let metrics = all_metrics(&rules());
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/woolly.json")).unwrap();
    let (mut wrong, mut checked) = (Vec::new(), 0);
    let mut look = |place: &str, text: &str, beside: &str| {
        // What Grafana puts in there is a time or an instance.
        let text = text.replace("$__rate_interval", "5m");
        check(place, &text, beside, &metrics, &mut wrong);
        checked += 1;
    };
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let legend = target["legendFormat"].as_str().unwrap_or_default();
            look(title, target["expr"].as_str().unwrap(), legend);
        }
        let transformed = &panel["transformations"][0]["options"]["renameByName"];
        for column in transformed.as_object().into_iter().flatten() {
            let expr = panel["targets"][0]["expr"].as_str().unwrap();
            look(title, expr, &format!("{{{{{}}}}}", column.0));
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        if let Some(expr) = annotation["expr"].as_str() {
            look("an annotation", expr, "");
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let query = variable["definition"].as_str().unwrap_or_default();
        if let Some(inside) = query.strip_prefix("label_values(") {
            let (metric, label) = inside.trim_end_matches(')').split_once(", ").unwrap();
            look("a variable", metric, &format!("{{{{{label}}}}}"));
        }
    }
    assert!(checked > 60, "only {checked} expressions were found");
    assert_right(&wrong);
}

#[test]
fn panels_of_the_dashboard_ask_the_chosen_source_and_do_not_overlap() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/woolly.json")).unwrap();
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is taken");
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{title} is too wide");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{title} lies over another panel");
            }
        }
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
    for row in
        ["Overview", "Requests", "Latency", "KV cache", "Stages", "Links and workers", "Failures"]
    {
        let panels = dashboard["panels"].as_array().unwrap();
        assert!(panels.iter().any(|it| it["type"] == "row" && it["title"] == row), "{row}");
    }
}

#[test]
fn the_rules_name_metrics_and_labels_that_exist_and_say_what_to_do() {
    let rules = rules();
    let metrics = all_metrics(&rules);
    let mut metrics_and_up = metrics;
    metrics_and_up.insert("up".to_owned(), Metric::default());
    let headings: Vec<String> = read("docs/watching.md")
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .map(|heading| heading.to_lowercase().replace(' ', "-"))
        .collect();
    let (mut wrong, mut linked) = (Vec::new(), BTreeSet::new());
    for Rule { kind, name, fields } in &rules {
        let beside: String = fields.values().map(String::as_str).collect::<Vec<_>>().join("\n");
        check(name, &fields["expr"], &beside, &metrics_and_up, &mut wrong);
        if kind == "record" {
            continue;
        }
        for field in ["for", "labels", "summary", "description", "action", "runbook"] {
            if fields.get(field).is_none_or(String::is_empty) {
                wrong.push(format!("{name} has no {field}"));
            }
        }
        if !["warning", "critical"].iter().any(|known| fields["labels"].contains(known)) {
            wrong.push(format!("{name}: how severe?"));
        }
        let heading = fields["runbook"].strip_prefix("docs/watching.md#").unwrap_or_default();
        if headings.iter().any(|known| known == heading) {
            linked.insert(heading.to_owned());
        } else {
            wrong.push(format!("{name}: docs/watching.md has no heading {heading:?}"));
        }
    }
    wrong.extend(
        headings
            .iter()
            .filter(|it| !linked.contains(*it))
            .map(|heading| format!("docs/watching.md: no alert leads to the heading {heading}")),
    );
    assert!(linked.len() >= 10, "only {linked:?}");
    assert_right(&wrong);
}

#[test]
fn the_documentation_has_every_metric_with_its_labels() {
    let mut metrics = of_all();
    let mut wrong = Vec::new();
    let (mut columns, mut documented) = (Vec::new(), 0);
    for line in read("docs/metrics.md").lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let code = |cell: &str| -> BTreeSet<String> {
            cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
        };
        if cells[0] == "metric" {
            columns = cells.iter().map(|cell| (*cell).to_owned()).collect();
        } else if cells[0].starts_with("`woolly_") {
            let at = |column: &str| columns.iter().position(|known| known == column);
            let labels = at("labels").map(|at| code(cells[at])).unwrap_or_default();
            let kind = cells[at("type").unwrap()].split([',', ' ']).next().unwrap();
            for name in code(cells[0]) {
                documented += 1;
                let Some(metric) = metrics.remove(&name) else {
                    wrong.push(format!("{name} is exposed by nobody, or documented twice"));
                    continue;
                };
                if metric.labels != labels {
                    wrong.push(format!("{name} has the labels {:?}", metric.labels));
                }
                if metric.kind != kind {
                    wrong.push(format!("{name} is a {}", metric.kind));
                }
            }
        }
    }
    wrong.extend(metrics.keys().map(|name| format!("{name} is not documented")));
    assert!(documented > 50, "only {documented} metrics were found");
    assert_right(&wrong);
}

#[test]
fn what_an_expression_names_is_found() {
    let text = r#"sum by (le, stage) (rate(woolly_a_bucket{x="by (y)", z=~"woolly_no"}[5m])) * on (job)
                  group_left (model) woolly_b"#;
    let Expression { series, labels } = expression(text);
    let named = |name: &str, labels: &[&str]| {
        (name.to_owned(), labels.iter().map(|label| (*label).to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(series, [named("woolly_a_bucket", &["x", "z"]), named("woolly_b", &[])]);
    assert_eq!(labels, ["le", "stage", "job", "model"]);
    assert_eq!(
        shown_labels("{{stage}} of {{ $labels.model }}: {{ $value | x }}"),
        ["stage", "model"]
    );
    let known = exposed("# TYPE woolly_b gauge\nwoolly_b{model=\"m\"} 1\n");
    let mut wrong = Vec::new();
    check("here", text, "{{other}}", &known, &mut wrong);
    assert_eq!(wrong.len(), 3, "{wrong:?}");
}
