//! A pipeline as naga sees it: its text parsed, its constants put in, checked.

use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Expression, Module, ShaderStage, StorageAccess, TypeInner};
use spark3d::compute::device::Kernel;
use spark3d::compute::device::shaders::source;

/// The entry point of every shader.
pub const ENTRY: &str = "main";

/// A pipeline without open constants.
pub struct Resolved {
    /// With one entry point.
    pub module: Module,
    /// What validation found out.
    pub info: ModuleInfo,
}

/// What kind of buffer a binding wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffer {
    /// A uniform.
    Uniform,
    /// A storage buffer.
    Storage {
        /// Whether it is written to.
        writable: bool,
    },
}

/// The kernel's text with its constants written into it. Where subgroups may be smaller than they are at most, whole subgroups
/// have nothing to multiply, which naga's own way to put constants in refuses: it asks for control flow that is uniform in the
/// workgroup.
fn with_constants(kernel: &Kernel) -> String {
    let value = |name: &str, ty: &str| {
        let (_, value) = kernel.constants.iter().find(|(n, _)| *n == name)?;
        Some(if ty == "bool" { (*value != 0.0).to_string() } else { format!("{ty}({value})") })
    };
    let line = |line: &str| {
        let Some(rest) = line.strip_prefix("override ") else { return line.to_string() };
        let Some((name, (ty, default))) = rest.split_once(':').and_then(|(n, r)| Some((n, r.split_once('=')?))) else {
            return line.to_string();
        };
        match value(name.trim(), ty.trim()) {
            Some(value) => format!("const {name}:{ty}= {value};"),
            None => format!("const {name}:{ty}={default}"),
        }
    };
    source(kernel).lines().map(|l| line(l) + "\n").collect()
}

/// A module whose constants may still be open.
pub struct Parsed {
    module: Module,
    info: ModuleInfo,
}

impl Parsed {
    /// Parses and checks the text of a kernel's module.
    ///
    /// # Errors
    /// What naga says of it.
    pub fn new(kernel: &Kernel) -> Result<Self, String> {
        Self::of(&source(kernel), has_surplus(kernel))
    }

    fn of(text: &str, has_surplus: bool) -> Result<Self, String> {
        let module = naga::front::wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
        let mut flags = ValidationFlags::all();
        flags.set(ValidationFlags::CONTROL_FLOW_UNIFORMITY, !has_surplus);
        let mut validator = Validator::new(flags, Capabilities::all());
        let info = validator.validate(&module).map_err(|e| e.emit_to_string(text))?;
        Ok(Self { module, info })
    }

    /// With the constants of a kernel of this module.
    ///
    /// # Errors
    /// What naga says of them.
    pub fn resolve(&self, kernel: &Kernel) -> Result<Resolved, String> {
        if has_surplus(kernel) {
            let Self { module, info } = Self::of(&with_constants(kernel), true)?;
            return Ok(Resolved { module, info });
        }
        let constants = kernel.constants.iter().map(|(name, value)| (name.to_string(), *value)).collect();
        let entry = Some((ShaderStage::Compute, ENTRY));
        let (module, info) =
            naga::back::pipeline_constants::process_overrides(&self.module, &self.info, entry, &constants)
                .map_err(|e| format!("constants: {e}"))?;
        Ok(Resolved { module: module.into_owned(), info: info.into_owned() })
    }
}

/// Whether a workgroup has subgroups that multiply nothing.
fn has_surplus(kernel: &Kernel) -> bool {
    kernel.variables.contains(&("SURPLUS", 1))
}

impl Resolved {
    /// Bytes of workgroup memory.
    pub fn workgroup_memory(&self) -> u32 {
        let variables = self.module.global_variables.iter().filter(|(_, v)| v.space == AddressSpace::WorkGroup);
        variables.map(|(_, v)| self.module.types[v.ty].inner.size(self.module.to_ctx())).sum()
    }

    /// Invocations of a workgroup.
    pub fn invocations(&self) -> u32 {
        self.module.entry_points[0].workgroup_size.iter().product()
    }

    /// Bindings of group 0 in order.
    pub fn buffers(&self) -> Vec<(u32, Buffer)> {
        let kind = |space| match space {
            AddressSpace::Uniform => Some(Buffer::Uniform),
            AddressSpace::Storage { access } => {
                Some(Buffer::Storage { writable: access.contains(StorageAccess::STORE) })
            }
            _ => None,
        };
        let bound = self.module.global_variables.iter();
        let mut found: Vec<_> = bound.filter_map(|(_, v)| Some((v.binding?.binding, kind(v.space)?))).collect();
        found.sort_by_key(|&(binding, _)| binding);
        found
    }

    /// Whether it multiplies cooperative matrices.
    pub fn has_matrices(&self) -> bool {
        self.module.types.iter().any(|(_, ty)| matches!(ty.inner, TypeInner::CooperativeMatrix { .. }))
    }

    /// The types behind the pointers that matrices are loaded from.
    pub fn matrix_sources(&self) -> Vec<String> {
        let info = self.info.get_entry_point(0);
        let function = &self.module.entry_points[0].function;
        let mut found = Vec::new();
        for (_, expression) in function.expressions.iter() {
            let Expression::CooperativeLoad { ref data, .. } = *expression else { continue };
            let ty = info[data.pointer].ty.inner_with(&self.module.types);
            found.push(match *ty {
                TypeInner::ValuePointer { size: None, .. } => "scalar".to_string(),
                TypeInner::Pointer { base, .. } => match self.module.types[base].inner {
                    TypeInner::Scalar(_) => "scalar".to_string(),
                    ref other => format!("{other:?}"),
                },
                ref other => format!("{other:?}"),
            });
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spirv;

    /// Both ways to put constants in give the same pipeline.
    #[test]
    fn constants_that_are_written_into_the_text_are_those_of_the_pipeline() {
        let kernel = Kernel::new("sgd/norm_partial").with("CHUNK", 512);
        let by_naga = Parsed::new(&kernel).unwrap().resolve(&kernel).unwrap();
        let Parsed { module, info } = Parsed::of(&with_constants(&kernel), false).unwrap();
        let by_text = Resolved { module, info };
        let words = |resolved| spirv::words(&kernel, resolved).unwrap().len();
        assert_eq!(by_text.workgroup_memory(), by_naga.workgroup_memory());
        assert_eq!((by_text.invocations(), by_text.buffers()), (by_naga.invocations(), by_naga.buffers()));
        assert!(words(&by_text) > 0 && words(&by_naga) > 0);
        assert!(!with_constants(&kernel).contains("override"));
        assert!(with_constants(&kernel).contains("u32(512)"));
    }

    #[test]
    fn an_unknown_constant_is_refused() {
        let kernel = Kernel::new("sgd/norm_partial").with("NONE", 1);
        assert!(Parsed::new(&kernel).unwrap().resolve(&kernel).is_err());
    }
}
