//! Which pipelines there are: of the small cases of all operators, of convolutions of all kinds, and of real sessions, on every
//! class of adapters, with the first kernel of every choice and with each of the others.

use crate::kernels::{Use, adapters, augmented, problems, shader_names, uses};
use crate::sessions::Session;
use rayon::prelude::*;
use spark3d::compute::device::recording::Precision;
use spark3d::compute::device::{AdapterFacts, Kernel};
use spark3d::compute::graph::Graph;
use spark3d::compute::ops::{cases, sgd};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A place in the list of adapter classes.
pub type Class = usize;

/// The classes of adapters with a name for each.
pub fn classes() -> Vec<(String, AdapterFacts)> {
    let name = |facts: &AdapterFacts| match facts.is_software() {
        true => facts.driver.clone(),
        false => format!("{} {}", facts.backend, facts.name),
    };
    adapters().into_iter().map(|facts| (name(&facts), facts)).collect()
}

/// What a real session needs a pipeline for, on one class of adapters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// The operator.
    pub operator: &'static str,
    /// The problem and the kernel for it, where the operator has several.
    pub choice: Option<(String, String)>,
    /// Whether a session runs it without being told to.
    pub is_default: bool,
}

/// A pipeline and where it is used.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// The shader with its variables and constants.
    pub kernel: Kernel,
    /// Classes of adapters that may run it.
    pub classes: BTreeSet<Class>,
    /// What real sessions need it for.
    pub needs: BTreeMap<Class, Need>,
}

impl Pipeline {
    /// Whether a real session runs it, on any class of adapters, without being told to.
    pub fn is_default(&self) -> bool {
        self.needs.values().any(|need| need.is_default)
    }
}

/// Pipelines by key.
pub type Pipelines = BTreeMap<String, Pipeline>;

fn add(to: &mut Pipelines, class: Class, kernel: Kernel, need: Option<Need>) {
    let found =
        to.entry(kernel.key()).or_insert_with(|| Pipeline { kernel, classes: BTreeSet::new(), needs: BTreeMap::new() });
    found.classes.insert(class);
    if let Some(need) = need {
        // A default somewhere is a default.
        let known = found.needs.entry(class).or_insert_with(|| need.clone());
        if need.is_default && !known.is_default {
            *known = need;
        }
    }
}

fn merge(mut a: Pipelines, b: Pipelines) -> Pipelines {
    for (key, pipeline) in b {
        match a.get_mut(&key) {
            None => {
                a.insert(key, pipeline);
            }
            Some(_) => {
                for &class in &pipeline.classes {
                    add(&mut a, class, pipeline.kernel.clone(), pipeline.needs.get(&class).cloned());
                }
            }
        }
    }
    a
}

fn of_graph(graph: &Graph, to: &mut Pipelines) {
    for (class, facts) in adapters().iter().enumerate() {
        uses(graph, facts, |found| add(to, class, found.dispatch.kernel, None));
    }
}

/// Those of the small cases of all operators, and of crops in one buffer and in several.
pub fn of_cases() -> Pipelines {
    let of = |precision: Precision| {
        let mut found = Pipelines::new();
        cases::cases_in(precision).iter().for_each(|case| of_graph(&case.graph(), &mut found));
        augmented(precision).iter().for_each(|graph| of_graph(graph, &mut found));
        found
    };
    [Precision::F32, Precision::F16].into_par_iter().map(of).reduce(Pipelines::new, merge)
}

/// Those of convolutions as networks have them, with all gradients.
pub fn of_convolutions() -> Pipelines {
    let problems = problems();
    let of = |precision: Precision| {
        problems.par_iter().map(move |problem| {
            let mut found = Pipelines::new();
            of_graph(&problem.graph(precision), &mut found);
            found
        })
    };
    merge(of(Precision::F32).reduce(Pipelines::new, merge), of(Precision::F16).reduce(Pipelines::new, merge))
}

/// Those of real sessions, with what they are needed for.
///
/// # Errors
/// A graph does not fit the limits of a class of adapters.
pub fn of_sessions() -> Result<Pipelines, String> {
    let classes = classes();
    let jobs: Vec<_> = [Precision::F32, Precision::F16]
        .into_iter()
        .flat_map(|precision| Session::ALL.map(|session| (precision, session)))
        .flat_map(|(precision, session)| (0..classes.len()).map(move |class| (precision, session, class)))
        .collect();
    let of = |&(precision, session, class): &(Precision, Session, Class)| {
        let (name, facts) = &classes[class];
        let failed = |error| format!("{session:?} {} on {name}: {error}", precision.name());
        let mut found = Pipelines::new();
        for graph in session.graphs(precision, facts).map_err(failed)? {
            uses(&graph, facts, |Use { dispatch, choice, is_default }| {
                let need = Need { operator: dispatch.label, choice, is_default };
                if is_default {
                    // As slow adapters run it.
                    let part = Some(dispatch.bindings.len() as u32 + 1);
                    add(&mut found, class, Kernel { part, ..dispatch.kernel.clone() }, None);
                }
                add(&mut found, class, dispatch.kernel, Some(need));
            });
            let layout = graph.parameters.layout(facts.max_binding);
            for dispatch in sgd::optimizer(&graph.parameters, &layout, 1.0).recording.dispatches {
                let need = Need { operator: dispatch.label, choice: None, is_default: true };
                add(&mut found, class, dispatch.kernel, Some(need));
            }
        }
        Ok(found)
    };
    jobs.par_iter().map(of).try_reduce(Pipelines::new, |a, b| Ok(merge(a, b)))
}

/// Adds the kernels of shaders that no graph has, with the defaults of their constants.
fn add_rest(to: &mut Pipelines) {
    let used: BTreeSet<&str> = to.values().map(|p| p.kernel.shader).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shaders");
    let rest: Vec<&str> = shader_names(&root).into_iter().filter(|name| !used.contains(name)).collect();
    for name in rest {
        for precision in [Precision::F32, Precision::F16] {
            (0..classes().len()).for_each(|class| add(to, class, Kernel { precision, ..Kernel::new(name) }, None));
        }
    }
}

/// All pipelines, or in short those of the small cases and of real sessions, and how many of what, as text.
///
/// # Errors
/// As [`of_sessions`].
pub fn all(short: bool) -> Result<(Pipelines, String), String> {
    let (cases, sessions) = (of_cases(), of_sessions()?);
    let convolutions = if short { Pipelines::new() } else { of_convolutions() };
    let defaults = sessions.values().filter(|p| p.is_default()).count();
    let mut counts = format!(
        "{} of real sessions ({defaults} by default), {} of the small cases of all operators",
        sessions.len(),
        cases.len()
    );
    if !short {
        counts += &format!(", {} of convolutions of all kinds", convolutions.len());
    }
    let mut all = merge(merge(sessions, cases), convolutions);
    add_rest(&mut all);
    let modules: BTreeSet<String> = all.values().map(|p| p.kernel.module_key()).collect();
    let (modules, classes) = (modules.len(), classes().len());
    let text = format!("{} pipelines of {modules} modules on {classes} classes of adapters: {counts}", all.len());
    Ok((all, text))
}
