//! One pass over all pipelines: SPIR-V, Metal's text, DirectX's text and what each pipeline takes, module by module, so that a
//! module is parsed once.

use crate::module::{Buffer, Parsed, Resolved};
use crate::pipelines::Pipelines;
use crate::{spirv, text};
use rayon::prelude::*;
use spark3d::compute::device::AdapterFacts;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// What to do beside writing texts.
pub struct Wanted<'a> {
    /// Classes of adapters.
    pub classes: &'a [(String, AdapterFacts)],
    /// The SPIR-V validator.
    pub validator: Option<&'a Path>,
    /// Which pipelines it sees.
    pub judge: &'a Choose<'a>,
    /// Where the SPIR-V of pipelines goes that another compiler is to see, and which these are.
    pub keep: (&'a Path, &'a Choose<'a>),
}

/// Chooses among pipelines by key.
pub type Choose<'a> = dyn Fn(&str, &Facts) -> bool + Sync + 'a;

/// What is known of a pipeline that naga accepts.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Whether it multiplies cooperative matrices.
    pub matrices: bool,
    /// Bytes of workgroup memory.
    pub workgroup_memory: u32,
    /// Invocations of a workgroup.
    pub invocations: u32,
    /// Bindings, and which of them are uniforms.
    pub bindings: Vec<(u32, bool)>,
}

impl Facts {
    /// Storage buffers that it binds.
    pub fn storage_buffers(&self) -> usize {
        self.bindings.iter().filter(|(_, is_uniform)| !is_uniform).count()
    }

    /// What exceeds the limits of an adapter.
    pub fn exceeds(&self, adapter: &AdapterFacts) -> Vec<String> {
        let rows = [
            ("bytes of workgroup memory", self.workgroup_memory, adapter.workgroup_memory),
            ("storage buffers", self.storage_buffers() as u32, adapter.max_storage_buffers),
            ("invocations", self.invocations, adapter.max_invocations),
        ];
        let over = rows.into_iter().filter(|(_, is, most)| is > most);
        over.map(|(what, is, most)| format!("{is} {what} of {most}")).collect()
    }
}

/// What came of a pipeline. A text that nobody asks for is `None`.
pub struct Translated {
    /// By naga's front end and its validator.
    pub facts: Result<Facts, String>,
    /// SPIR-V can be written.
    pub spirv: Result<(), String>,
    /// The validator accepts it.
    pub validated: Option<Result<(), String>>,
    /// A hash of Metal's text.
    pub metal: Option<Result<u64, String>>,
    /// A hash of DirectX's text.
    pub directx: Option<Result<u64, String>>,
    /// The file with its SPIR-V, where one was asked for.
    pub file: Option<PathBuf>,
}

/// Translates all pipelines.
pub fn all(pipelines: &Pipelines, wanted: &Wanted) -> BTreeMap<String, Translated> {
    let mut modules: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (key, pipeline) in pipelines {
        modules.entry(pipeline.kernel.module_key()).or_default().push(key);
    }
    let modules: Vec<Vec<&str>> = modules.into_values().collect();
    let of_module = |keys: &Vec<&str>| {
        let parsed = Parsed::new(&pipelines[keys[0]].kernel);
        let of = |key: &&str| (key.to_string(), translate(&parsed, key, pipelines, wanted));
        keys.iter().map(of).collect::<Vec<_>>()
    };
    modules.par_iter().flat_map_iter(of_module).collect()
}

fn translate(parsed: &Result<Parsed, String>, key: &str, pipelines: &Pipelines, wanted: &Wanted) -> Translated {
    let pipeline = &pipelines[key];
    let resolved = parsed.as_ref().map_err(String::clone).and_then(|parsed| parsed.resolve(&pipeline.kernel));
    let resolved = match resolved {
        Ok(resolved) => resolved,
        Err(error) => {
            let spirv = Err("not valid".into());
            return Translated { facts: Err(error), spirv, validated: None, metal: None, directx: None, file: None };
        }
    };
    let facts = Facts {
        matrices: resolved.has_matrices(),
        workgroup_memory: resolved.workgroup_memory(),
        invocations: resolved.invocations(),
        bindings: resolved.buffers().into_iter().map(|(at, kind)| (at, kind == Buffer::Uniform)).collect(),
    };
    let on = |backend: &str| pipeline.classes.iter().any(|&class| wanted.classes[class].1.backend == backend);
    // Tiles and pointers of matrix kernels are those of their adapters, and wgpu has none on DirectX.
    let metal = (!facts.matrices || on("Metal")).then(|| text::metal(&resolved).map(hash));
    let directx = (!facts.matrices).then(|| text::directx(&resolved).map(hash));
    let (spirv, validated, file) = vulkan(key, &facts, &resolved, pipelines, wanted);
    Translated { facts: Ok(facts), spirv, validated, metal, directx, file }
}

type Vulkan = (Result<(), String>, Option<Result<(), String>>, Option<PathBuf>);

fn vulkan(key: &str, facts: &Facts, resolved: &Resolved, pipelines: &Pipelines, wanted: &Wanted) -> Vulkan {
    let words = match spirv::words(&pipelines[key].kernel, resolved) {
        Ok(words) => words,
        Err(error) => return (Err(error), None, None),
    };
    let validated =
        wanted.validator.filter(|_| (wanted.judge)(key, facts)).map(|validator| spirv::validate(validator, &words));
    let (folder, keep) = wanted.keep;
    let file = keep(key, facts).then(|| folder.join(format!("{:016x}.spv", hash(key.to_string()))));
    let written = file.as_ref().map_or(Ok(()), |file| std::fs::write(file, spirv::bytes(&words)));
    (written.map_err(|e| e.to_string()), validated, file)
}

fn hash(text: String) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exceeds_an_adapter_is_told() {
        let adapter = AdapterFacts {
            workgroup_memory: 16 << 10,
            max_storage_buffers: 2,
            max_invocations: 64,
            ..AdapterFacts::default()
        };
        let bindings = vec![(0, true), (1, false), (2, false)];
        let mut facts = Facts { matrices: false, workgroup_memory: 16 << 10, invocations: 64, bindings };
        assert_eq!(facts.exceeds(&adapter), Vec::<String>::new());
        facts.workgroup_memory += 4;
        facts.bindings.push((3, false));
        let expected = ["16388 bytes of workgroup memory of 16384", "3 storage buffers of 2"];
        assert_eq!(facts.exceeds(&adapter), expected);
    }
}
