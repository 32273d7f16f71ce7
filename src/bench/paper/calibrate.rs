//! Efficiencies of a card from a profile that was measured on it.
//!
//! The profile has one time for each operator, of one sample with as many visible blocks as the plan allows. Few numbers, then,
//! each of which is a sum over dispatches with different bounds; so the efficiencies are fitted together, to all operators:
//!
//! 1. The roofline of the report gives `arithmetic` and `global_memory` at once: they are what its two loops reached, by what the
//!    hardware's numbers say.
//! 2. The others are found by coordinate descent. Each in turn takes, within its range of [`FITTED`], the value that makes
//!    sum over operators of share · huber(ln(measured / estimated)) + 0.0001 · ln(value / default)² least, first among steps of a
//!    factor of 1.25, then closer; after a round all move on in its direction while that helps (Hooke and Jeeves 1961), and rounds go
//!    on until none moves. The share is that of the measured time, a hundredth at least. Huber's loss
//!    is quadratic up to a factor of 1.1 and linear beyond, so that an operator of which the model knows too little does not
//!    pull all others along. The last term keeps what nothing measures at its default.
//!
//! The fit moves efficiencies alone. Where it ends far from one, the hardware's numbers or the model are wrong.

use super::efficiency::{FITTED, Fitted};
use super::model::estimate;
use super::{Adapter, Efficiency, PaperRun};
use crate::base::{Error, Result};
use crate::bench::graphs::{Mode, Task};
use crate::bench::step::Run;
use crate::bench::table::Table;
use crate::tasks::Plan;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A profile that was measured, and the roofline beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Seconds of each operator for one sample.
    pub operators: Vec<(String, f64)>,
    /// Operations and bytes a second that the card reached at most.
    pub roofline: [f64; 2],
}

#[derive(Deserialize)]
struct Results {
    plan: Value,
    roofline: Roofline,
    step: Option<Step>,
}

#[derive(Deserialize)]
struct Roofline {
    flops_per_second: f64,
    bytes_per_second: f64,
}

#[derive(Deserialize)]
struct Step {
    #[serde(flatten)]
    run: Run,
    precision: String,
    profile: Option<Vec<Profiled>>,
}

#[derive(Deserialize)]
struct Profiled {
    operator: String,
    dispatches: usize,
    seconds: f64,
}

const REMEDY: &str = "Give what `spark3d bench --only step --profile --json` wrote on the card, and the same --preset, --set, --task and --mode";

impl Measured {
    /// The profile of a report, where it is of this step.
    ///
    /// # Errors
    /// The file is no report, is of another plan or step (names the difference), or has no profile by operator.
    pub fn read(path: &Path, plan: &Plan, step: (Task, Mode)) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        Self::parse(&text, plan, step).map_err(|cause| Error::file(path, cause, REMEDY))
    }

    /// As [`Measured::read`], from the text.
    ///
    /// # Errors
    /// As [`Measured::read`], as a sentence.
    pub fn parse(text: &str, plan: &Plan, (task, mode): (Task, Mode)) -> Result<Self, String> {
        let Results { plan: measured, roofline, step } =
            serde_json::from_str(text).map_err(|e| format!("it is not a report: {e}"))?;
        let Some(step) = step else { return Err("it has no step".into()) };
        let differences = differences(&plan.to_json(), &measured);
        if !differences.is_empty() {
            return Err(format!("it is of another plan (here / there): {}", differences.join(", ")));
        }
        if step.precision != plan.train.precision.name() {
            return Err(format!("it is in {}, and the plan in {}", step.precision, plan.train.precision.name()));
        }
        let run = Run::of(plan, task, mode);
        if step.run != run {
            return Err(format!("it is of another step: {run} here, {} there", step.run));
        }
        let Some(profile) = step.profile else { return Err("it has no profile".into()) };
        let known = profile.into_iter().filter(|o| o.dispatches > 0 && o.seconds > 0.0);
        let operators: Vec<(String, f64)> = known.map(|o| (o.operator, o.seconds)).collect();
        if operators.is_empty() {
            return Err("its profile has no time of any operator (the adapter has no timestamps)".into());
        }
        Ok(Self { operators, roofline: [roofline.flops_per_second, roofline.bytes_per_second] })
    }
}

/// Keys in which two plans differ, with both values.
fn differences(a: &Value, b: &Value) -> Vec<String> {
    fn flat(prefix: &str, value: &Value, out: &mut BTreeMap<String, String>) {
        match value.as_object() {
            Some(table) => table.iter().for_each(|(key, value)| flat(&format!("{prefix}.{key}"), value, out)),
            None => drop(out.insert(prefix.trim_start_matches('.').to_string(), value.to_string())),
        }
    }
    let [mut left, mut right] = [BTreeMap::new(), BTreeMap::new()];
    flat("", a, &mut left);
    flat("", b, &mut right);
    let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let value = |list: &BTreeMap<String, String>, key: &str| list.get(key).map_or("-".into(), String::clone);
    let both = keys.into_iter().map(|k| (k, value(&left, k), value(&right, k)));
    both.filter(|(_, x, y)| x != y).map(|(k, x, y)| format!("{k} = {x} / {y}")).collect()
}

/// An operator before and after the fit.
#[derive(Clone, Debug, Serialize)]
pub struct Fit {
    /// Its name.
    pub operator: String,
    /// Seconds as measured.
    pub measured: f64,
    /// Seconds as estimated before.
    pub before: f64,
    /// Seconds as estimated with the new efficiencies.
    pub after: f64,
}

/// What a calibration found.
#[derive(Clone, Debug, Serialize)]
pub struct Calibration {
    /// The adapter with the new efficiencies.
    pub adapter: Adapter,
    /// Those before.
    pub before: Efficiency,
    /// By operator, the longest first.
    pub operators: Vec<Fit>,
    /// Mean of |ln(measured / estimated)| by measured time, before and after.
    pub errors: [f64; 2],
}

/// Where Huber's loss becomes linear: at a factor of 1.1.
const ROBUST: f64 = 0.1;
/// Weight of the defaults.
const PRIOR: f64 = 1e-4;
/// The coarsest step of a search, and how far it goes each way.
const STEP: f64 = 1.25;
const STEPS: i32 = 12;
/// Rounds over all efficiencies at most.
const ROUNDS: usize = 100;

/// Fits the efficiencies of a counted step, whose counts are of as many visible blocks as there can be.
///
/// # Errors
/// The profile and the step have no operator in common.
pub fn calibrate(paper: &PaperRun, measured: &Measured) -> Result<Calibration> {
    let before = paper.adapter.efficiency;
    let common: Vec<&(String, f64)> =
        measured.operators.iter().filter(|(name, _)| paper.sample.iter().any(|c| c.operator == name)).collect();
    if common.is_empty() {
        return Err(Error::plan("the profile has none of the operators of this step", REMEDY));
    }
    let whole: f64 = common.iter().map(|o| o.1).sum();
    let estimated = |e: &Efficiency| -> Vec<f64> {
        let mut seconds: BTreeMap<&str, f64> = BTreeMap::new();
        for count in &paper.sample {
            *seconds.entry(count.operator).or_default() +=
                count.dispatches as f64 * estimate(count, &paper.adapter, e).seconds;
        }
        common.iter().map(|(name, _)| seconds[name.as_str()]).collect()
    };
    let share = |seconds: f64| (seconds / whole).max(0.01);
    let loss = |e: &Efficiency| -> f64 {
        let huber = |x: f64| if x < ROBUST { x * x / 2.0 } else { ROBUST * (x - ROBUST / 2.0) };
        let of_operators = common.iter().zip(estimated(e)).map(|(o, s)| share(o.1) * huber((o.1 / s).ln().abs()));
        let (mut found, mut known) = (*e, before);
        let of_defaults = FITTED.iter().map(|f| PRIOR * (*(f.place)(&mut found) / *(f.place)(&mut known)).ln().powi(2));
        of_operators.sum::<f64>() + of_defaults.sum::<f64>()
    };

    let mut best = before;
    let [flops, bytes] = measured.roofline;
    let hardware = &paper.adapter.hardware;
    best.arithmetic = (flops / hardware.f32_flops).clamp(0.02, 1.2);
    best.global_memory = (bytes / hardware.memory_rate).clamp(0.02, 1.2);
    let free = |f: &&Fitted| f.name != "arithmetic" && f.name != "global_memory";
    let mut least = loss(&best);
    let mut step = STEP;
    for _ in 0..ROUNDS {
        let (start, round) = (least, best);
        for Fitted { place, range, .. } in FITTED.iter().filter(free) {
            let middle = *place(&mut best);
            for n in -STEPS..=STEPS {
                let mut tried = best;
                *place(&mut tried) = (middle * step.powi(n)).clamp(range[0], range[1]);
                let found = loss(&tried);
                if found < least {
                    (least, best) = (found, tried);
                }
            }
        }
        // On in the direction of the whole round, as long as that helps.
        for power in (0..6).map(|n| f64::from(1 << n)) {
            let (mut tried, mut was, mut is) = (best, round, best);
            for Fitted { place, range, .. } in FITTED.iter().filter(free) {
                let (was, is) = (*place(&mut was), *place(&mut is));
                *place(&mut tried) = (is * (is / was).powf(power)).clamp(range[0], range[1]);
            }
            let found = loss(&tried);
            if found >= least {
                break;
            }
            (least, best) = (found, tried);
        }
        if start - least <= 1e-3 * start {
            step = step.sqrt();
        }
        if step < 1.002 {
            break;
        }
    }
    let error =
        |seconds: &[f64]| -> f64 { common.iter().zip(seconds).map(|(o, s)| o.1 / whole * (o.1 / s).ln().abs()).sum() };
    let (was, is) = (estimated(&before), estimated(&best));
    let errors = [error(&was), error(&is)];
    let fit = |((o, before), after): ((&&(String, f64), &f64), &f64)| Fit {
        operator: o.0.clone(),
        measured: o.1,
        before: *before,
        after: *after,
    };
    let mut operators: Vec<Fit> = common.iter().zip(&was).zip(&is).map(fit).collect();
    operators.sort_by(|a, b| b.measured.total_cmp(&a.measured));
    let adapter = Adapter { efficiency: best, ..paper.adapter.clone() };
    Ok(Calibration { adapter, before, operators, errors })
}

impl Calibration {
    /// Efficiencies and operators, before and after.
    pub fn text(&self) -> String {
        let (mut before, mut after) = (self.before, self.adapter.efficiency);
        let value = |e: &mut Efficiency, f: &Fitted| Some(*(f.place)(e));
        let efficiencies = Table::default()
            .words("efficiency", FITTED.iter().map(|f| f.name))
            .fixed("before", 3, FITTED.iter().map(|f| value(&mut before, f)).collect())
            .fixed("after", 3, FITTED.iter().map(|f| value(&mut after, f)).collect());
        let all = &self.operators;
        let ms = |f: fn(&Fit) -> f64| all.iter().map(|o| Some(f(o) * 1e3)).collect::<Vec<_>>();
        let ratio = |f: fn(&Fit) -> f64| all.iter().map(|o| Some(o.measured / f(o))).collect::<Vec<_>>();
        let operators = Table::default()
            .words("operator", all.iter().map(|o| o.operator.as_str()))
            .fixed("measured ms", 3, ms(|o| o.measured))
            .fixed("before ms", 3, ms(|o| o.before))
            .fixed("after ms", 3, ms(|o| o.after))
            .fixed("measured / before", 2, ratio(|o| o.before))
            .fixed("measured / after", 2, ratio(|o| o.after));
        let at_an_end = |f: &&Fitted| f.range.contains(&*(f.place)(&mut self.adapter.efficiency.clone()));
        let ends: Vec<&str> = FITTED.iter().filter(at_an_end).map(|f| f.name).collect();
        let ends = match ends.is_empty() {
            true => String::new(),
            false => format!("\n{} went as far as a fit may: see to the hardware's numbers", ends.join(", ")),
        };
        let [before, after] = self.errors.map(f64::exp);
        format!(
            "Calibration for {}, one sample with all blocks visible that the plan allows\n\n{efficiencies}\n\n{operators}\n\n\
             off by a factor of {before:.2} before and {after:.2} after, on average over the measured time{ends}",
            self.adapter.name
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::paper::Visible;
    use crate::compute::device::KernelTable;
    use serde_json::json;

    const STEP_OF: (Task, Mode) = (Task::Mae, Mode::Train);

    fn plan(precision: &str) -> Plan {
        // One sample at a time: then latency takes a share of the time by which it can be told.
        let set = ["train.patch=[96,96,96]", "train.micro_batch=1", &format!("train.precision=\"{precision}\"")];
        Plan::resolve("s3d-b", None, &set.map(String::from)).unwrap()
    }

    /// A report that the model itself makes with these efficiencies.
    fn report(plan: &Plan, paper: &PaperRun, truth: &Efficiency) -> Value {
        let mut seconds: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
        for count in &paper.sample {
            let of = seconds.entry(count.operator).or_default();
            of.0 += count.dispatches;
            of.1 += count.dispatches as f64 * estimate(count, &paper.adapter, truth).seconds;
        }
        let profile = seconds.iter().map(|(o, (n, s))| json!({ "operator": o, "dispatches": n, "seconds": s }));
        let mut step = json!(paper.run);
        step["precision"] = json!(plan.train.precision.name());
        step["profile"] = profile.collect();
        let hardware = &paper.adapter.hardware;
        json!({
            "plan": plan.to_json(),
            "roofline": {
                "flops_per_second": hardware.f32_flops * truth.arithmetic,
                "bytes_per_second": hardware.memory_rate * truth.global_memory,
            },
            "step": step,
        })
    }

    fn paper(plan: &Plan) -> PaperRun {
        let adapter = Adapter::find("h100").unwrap();
        PaperRun::new(plan, STEP_OF, adapter, &KernelTable::default(), Visible::Capacity, None).unwrap()
    }

    #[test]
    fn a_fit_recovers_the_efficiencies_of_a_card() {
        let plan = plan("f16");
        let paper = paper(&plan);
        let truth = Efficiency {
            issue: 0.4,
            global_memory: 0.7,
            workgroup_memory: 0.8,
            latency: 2.0,
            dispatch: 1.8,
            ..paper.adapter.efficiency
        };
        let text = report(&plan, &paper, &truth).to_string();
        let fit = calibrate(&paper, &Measured::parse(&text, &plan, STEP_OF).unwrap()).unwrap();
        let found = fit.adapter.efficiency;
        assert!(fit.errors[0] > 0.2 && fit.errors[1] < 0.02, "{:?} {found:?}", fit.errors);
        assert_eq!(found.global_memory, truth.global_memory);
        for (name, found, truth) in [
            ("issue", found.issue, truth.issue),
            ("latency", found.latency, truth.latency),
            ("dispatch", found.dispatch, truth.dispatch),
        ] {
            assert!((found / truth).ln().abs() < 0.15, "{name}: {found}, not {truth}");
        }
        // One operator that the model knows nothing of does not pull the others along.
        let mut odd = report(&plan, &paper, &truth);
        let profile = odd["step"]["profile"].as_array_mut().unwrap();
        let densify = profile.iter_mut().find(|o| o["operator"] == "densify").unwrap();
        densify["seconds"] = json!(densify["seconds"].as_f64().unwrap() * 20.0);
        let fit = calibrate(&paper, &Measured::parse(&odd.to_string(), &plan, STEP_OF).unwrap()).unwrap();
        let convolutions = fit.operators.iter().filter(|o| o.operator.starts_with("conv3d"));
        for o in convolutions {
            assert!((o.after / o.measured).ln().abs() < 0.15, "{o:?} {:?}", fit.adapter.efficiency);
        }
        assert!(fit.text().contains("measured / after"));
    }

    #[test]
    fn reports_of_something_else_are_refused() {
        let plan = plan("f16");
        let paper = paper(&plan);
        let whole = report(&plan, &paper, &paper.adapter.efficiency);
        let refused = |report: &Value| Measured::parse(&report.to_string(), &plan, STEP_OF).unwrap_err();
        let changed = |pointer: &str, value: Value| {
            let mut report = whole.clone();
            *report.pointer_mut(pointer).unwrap() = value;
            refused(&report)
        };
        assert!(Measured::parse(&whole.to_string(), &plan, STEP_OF).is_ok());
        let error = changed("/plan/train/precision", json!("f32"));
        assert!(error.contains("train.precision = \"f16\" / \"f32\""), "{error}");
        assert!(changed("/step/precision", json!("f32")).contains("f32"));
        assert!(changed("/step/task", json!("seg")).contains("seg"));
        assert!(changed("/step/profile", Value::Null).contains("no profile"));
        let clock = json!([{ "operator": "all, by the clock (no timestamps)", "dispatches": 0, "seconds": 1.0 }]);
        assert!(changed("/step/profile", clock).contains("timestamps"));
        assert!(refused(&json!({ "roofline": 1 })).contains("not a report"));
    }
}
