//! Operators against the roofline: of single cases, and of a whole run.

use super::table::Table;
use super::{Roofline, median, percent};
use crate::base::{Error, Result};
use crate::compute::device::{Gpu, Timing};
use crate::compute::graph::{GraphId, Session};
use crate::compute::ops::cases::{self, Setup};
use serde::Serialize;
use std::rc::Rc;
use std::time::Instant;

/// One operator, over all its dispatches of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Operator {
    /// Name of the operator.
    pub operator: String,
    /// Dispatches of one run.
    pub dispatches: usize,
    /// Seconds of each run.
    pub runs: Vec<f64>,
    /// Their median.
    pub seconds: f64,
    /// Floating-point operations of one run.
    pub flops: f64,
    /// Bytes that must move at least.
    pub bytes: f64,
    /// The least time on this adapter: kernels run one after the other, so it is the sum of their floors. 0 is unknown.
    pub bound_seconds: f64,
}

impl Operator {
    /// 10^9 a second; `None` where nothing is counted.
    fn rate(&self, amount: f64) -> Option<f64> {
        (amount > 0.0 && self.seconds > 0.0).then(|| amount / self.seconds / 1e9)
    }
    fn share_of_bound(&self) -> Option<f64> {
        percent(self.bound_seconds, self.seconds).filter(|_| self.bound_seconds > 0.0)
    }
}

/// A case by operator.
#[derive(Clone, Debug, Serialize)]
pub struct CaseTimes {
    /// Name of the case.
    pub case: String,
    /// Its operators, forward and backward.
    pub operators: Vec<Operator>,
}

/// Brings inputs to the device; part of every case, subject of none.
const UPLOAD: &str = "pack";

/// The benchmark cases; with `filter` those whose name contains it, small cases too.
pub fn select(filter: Option<&str>) -> Result<Vec<(String, Setup)>> {
    let mut list = cases::benchmarks();
    if let Some(filter) = filter {
        list.extend(cases::cases().into_iter().map(|c| (c.name, c.setup)));
        let names: Vec<String> = list.iter().map(|c| c.0.clone()).collect();
        list.retain(|(name, _)| name.to_lowercase().contains(&filter.to_lowercase()));
        if list.is_empty() {
            let names = names.join("\n  ");
            return Err(Error::Usage(format!("no case has {filter} in its name; the cases are\n  {names}")));
        }
    }
    Ok(list)
}

/// Times the operators of cases, forward and backward.
pub fn run(
    gpu: &Rc<Gpu>,
    cases: Vec<(String, Setup)>,
    runs: usize,
    roofline: &Roofline,
    report: &dyn Fn(&str),
) -> Result<Vec<CaseTimes>> {
    let time = |(case, setup): (String, Setup)| {
        report(&format!("operators: {case}"));
        let (session, graph) = setup.session(gpu)?;
        let mut operators = time(&session, graph, runs, roofline)?;
        operators.retain(|o| o.operator != UPLOAD);
        Ok(CaseTimes { case, operators })
    };
    cases.into_iter().map(time).collect()
}

/// Time of every operator of a graph, in order of first use; one line for all of them where the adapter has no timestamps.
pub fn time(session: &Session, graph: GraphId, runs: usize, roofline: &Roofline) -> Result<Vec<Operator>> {
    session.run(graph)?;
    session.gpu.wait()?;
    let (mut timed, mut clock) = (Vec::new(), Vec::new());
    for _ in 0..runs.max(1) {
        let start = Instant::now();
        timed.extend(session.run_timed(graph)?);
        session.gpu.wait()?;
        clock.push(start.elapsed().as_secs_f64());
    }
    if timed.is_empty() {
        let operator = "all, by the clock (no timestamps)".to_string();
        let seconds = median(clock.iter().copied());
        return Ok(vec![Operator { operator, runs: clock, seconds, ..Default::default() }]);
    }
    Ok(by_operator(&timed, roofline))
}

/// Sums the dispatches of each operator.
fn by_operator(runs: &[Vec<Timing>], roofline: &Roofline) -> Vec<Operator> {
    let mut out: Vec<Operator> = Vec::new();
    for (k, timings) in runs.iter().enumerate() {
        for t in timings {
            let at = out.iter().position(|o| o.operator == t.label).unwrap_or_else(|| {
                let (operator, runs) = (t.label.to_string(), vec![0.0; runs.len()]);
                out.push(Operator { operator, runs, ..Default::default() });
                out.len() - 1
            });
            let o = &mut out[at];
            o.runs[k] += t.seconds;
            if k == 0 {
                o.dispatches += 1;
                o.flops += t.flops;
                o.bytes += t.bytes;
                o.bound_seconds += roofline.bound(t.flops, t.bytes);
            }
        }
    }
    for o in &mut out {
        o.seconds = median(o.runs.iter().copied());
    }
    out
}

/// All operators as one.
fn total(operators: &[Operator]) -> Operator {
    let sum = |f: fn(&Operator) -> f64| operators.iter().map(f).sum();
    Operator {
        operator: "all".to_string(),
        dispatches: operators.iter().map(|o| o.dispatches).sum(),
        runs: Vec::new(),
        seconds: sum(|o| o.seconds),
        flops: sum(|o| o.flops),
        bytes: sum(|o| o.bytes),
        bound_seconds: sum(|o| o.bound_seconds),
    }
}

/// The cases as a table.
pub fn case_table(cases: &[CaseTimes]) -> String {
    let names = cases.iter().flat_map(|c| (0..c.operators.len()).map(|k| if k == 0 { c.case.as_str() } else { "" }));
    let all: Vec<&Operator> = cases.iter().flat_map(|c| &c.operators).collect();
    columns(Table::default().words("case", names), &all, None).to_string()
}

/// A whole run as a table: the slowest operator first, all of them last.
pub fn profile_table(operators: &[Operator]) -> String {
    let sum = total(operators);
    let mut sorted: Vec<&Operator> = operators.iter().collect();
    sorted.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    sorted.push(&sum);
    columns(Table::default(), &sorted, Some(sum.seconds)).to_string()
}

fn columns(table: Table, operators: &[&Operator], whole: Option<f64>) -> Table {
    let mut table = table
        .words("operator", operators.iter().map(|o| o.operator.as_str()))
        .counts("dispatches", operators.iter().map(|o| o.dispatches))
        .numbers("ms", operators.iter().map(|o| Some(o.seconds * 1e3)));
    if let Some(whole) = whole {
        table = table.percents("of all", operators.iter().map(|o| percent(o.seconds, whole)));
    }
    table
        .numbers("GFLOP/s", operators.iter().map(|o| o.rate(o.flops)))
        .numbers("GB/s", operators.iter().map(|o| o.rate(o.bytes)))
        .numbers("bound ms", operators.iter().map(|o| (o.bound_seconds > 0.0).then_some(o.bound_seconds * 1e3)))
        .percents("bound / time", operators.iter().map(|o| o.share_of_bound()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_chosen_by_a_part_of_their_name() {
        let names = |filter| select(filter).map(|list| list.into_iter().map(|c| c.0).collect::<Vec<_>>());
        assert!(names(None).unwrap().iter().all(|n| n.contains('@')));
        let norms = names(Some("Batch NORM")).unwrap();
        assert_eq!(norms, ["sparse batch norm"]);
        let error = select(Some("conv9d")).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains("conv9d") && error.contains("avg_pool3d"), "{error}");
    }

    #[test]
    fn dispatches_add_up_and_runs_have_their_median() {
        let roofline = Roofline { flops_per_second: 10.0, bytes_per_second: 10.0 };
        let timing = |label, seconds, flops, bytes| Timing { label, seconds, flops, bytes };
        let run = |s: f64| vec![timing("a", s, 10.0, 20.0), timing("b", 8.0, 0.0, 0.0), timing("a", s, 30.0, 0.0)];
        let found = by_operator(&[run(4.0), run(5.0), run(9.0)], &roofline);
        assert_eq!(found.len(), 2);
        let a = &found[0];
        assert_eq!((a.operator.as_str(), a.dispatches, a.seconds), ("a", 2, 10.0));
        assert_eq!((a.flops, a.bytes, a.bound_seconds), (40.0, 20.0, 2.0 + 3.0));
        assert_eq!(a.share_of_bound(), Some(50.0));
        assert_eq!((found[1].seconds, found[1].share_of_bound(), found[1].rate(0.0)), (8.0, None, None));
        assert_eq!(total(&found).seconds, 18.0);
        let table = profile_table(&found);
        assert!(
            table.lines().nth(1).is_some_and(|l| l.starts_with('a'))
                && table.lines().last().is_some_and(|l| l.starts_with("all"))
        );
    }
}
