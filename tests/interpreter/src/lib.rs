//! Runs compute kernels in WGSL on the processor, lane by lane, and finds what a GPU would punish: races, memory that nobody
//! wrote, accesses out of range, barriers that some lanes miss, integer arithmetic without a result. It also counts what decides
//! the speed of a kernel on a GPU: sectors of memory, cycles of the banks of workgroup memory, operations.
//!
//! [`Kernel::new`] takes the text of a shader, naga parses and validates it, and [`run`] runs some or all workgroups one after
//! another on buffers of bytes.
//!
//! All lanes of a workgroup run in step: each operation is executed by all lanes that take part before the next. What this would
//! hide, the order of lanes between two barriers, is found by the shadow of memory: two lanes that touch the same byte between two
//! barriers race if one of them writes, whatever the values, and lanes of one subgroup are no exception. `workgroupBarrier` orders
//! workgroup memory, `storageBarrier` orders storage.
//!
//! Where WGSL leaves a choice:
//!
//! * A barrier must be reached by all lanes of the workgroup together, those that have returned too (see
//!   [`Options::returned_lanes_may_miss_barriers`]). A subgroup operation must be reached by all lanes of the subgroup together,
//!   but those that have returned from the kernel; to ask for the value of one of these is out of range. A cooperative operation
//!   must be reached by all lanes of a whole subgroup.
//! * Subgroups are consecutive ranges of `local_invocation_index`.
//! * `fma` is rounded once. `dot` and matrices round each product and sum, in the order of the components. Half floats are rounded
//!   to nearest even after every operation; subnormal numbers are kept.
//! * Cooperative products add in single precision in the order of the inner index, starting from the third matrix. The stride of a
//!   cooperative access counts elements of the pointer's type; the elements of a row lie side by side.
//! * After a fault the run goes on: reads out of range are zero, writes are left out, a division by zero yields the dividend.

mod access;
mod builtins;
mod compile;
mod cooperative;
mod counting;
mod execute;
mod expressions;
mod faults;
mod launch;
mod mask;
mod math;
mod memory;
mod operations;
mod operators;
mod overrides;
mod pointers;
mod program;
mod report;
mod statements;
mod subgroups;
mod together;
mod types;

pub use launch::{Binding, Buffer, Launch, Options, run};
pub use report::{Conflict, Counts, Fault, FaultKind, LineCounts, Report};

use naga::Module;
use naga::back::pipeline_constants::{PipelineConstantError, process_overrides};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use std::fmt;

/// Why a kernel cannot be run.
#[derive(Clone, PartialEq, Debug)]
pub enum Error {
    /// naga does not accept the shader or its constants.
    Rejected(String),
    /// The shader uses what the interpreter does not know: the expression, statement or type.
    Unsupported(String),
    /// The shader has no such entry point, or the launch does not fit the kernel.
    Invalid(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Rejected(why) => write!(f, "the shader is not accepted: {why}"),
            Self::Unsupported(what) => write!(f, "the interpreter does not support {what}"),
            Self::Invalid(why) => write!(f, "the kernel cannot be run: {why}"),
        }
    }
}

impl std::error::Error for Error {}

/// An error with what caused it.
fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    causes.collect::<Vec<_>>().join(": ")
}

fn parse(wgsl: &str) -> Result<(Module, ModuleInfo), Error> {
    let module = naga::front::wgsl::parse_str(wgsl).map_err(|error| Error::Rejected(error.emit_to_string(wgsl)))?;
    let flags = ValidationFlags::all() - ValidationFlags::CONTROL_FLOW_UNIFORMITY;
    let info = Validator::new(flags, Capabilities::all()).validate(&module);
    let info = info.map_err(|error| Error::Rejected(error.emit_to_string(wgsl)))?;
    Ok((module, info))
}

/// A kernel ready to run: parsed, validated, its overrides resolved.
pub struct Kernel {
    program: program::Program,
}

impl Kernel {
    /// Takes in the compute entry point `entry_point` of a shader; `constants` are values of its overrides by name or id.
    ///
    /// naga's proof that barriers are reached in uniform control flow is left out: the run looks for itself.
    pub fn new(wgsl: &str, entry_point: &str, constants: &[(&str, f64)]) -> Result<Self, Error> {
        let (module, info) = parse(wgsl)?;
        let values = constants.iter().map(|(name, value)| ((*name).to_string(), *value)).collect();
        let entry = Some((naga::ShaderStage::Compute, entry_point));
        let program = match process_overrides(&module, &info, entry, &values) {
            Ok((module, info)) => compile::compile(&module, &info, entry_point, wgsl)?,
            Err(error) => {
                let text = overrides::as_constants(wgsl, &module, constants);
                let (PipelineConstantError::ValidationError(_), Some(text)) = (&error, text) else {
                    return Err(Error::Rejected(causes(&error)));
                };
                let (module, info) = parse(&text)?;
                compile::compile(&module, &info, entry_point, &text)?
            }
        };
        let lanes: u64 = program.workgroup_size.iter().map(|size| u64::from(*size)).product();
        if lanes == 0 || lanes > mask::MOST_LANES as u64 {
            return Err(Error::Unsupported(format!("workgroups of {lanes} lanes")));
        }
        Ok(Self { program })
    }

    /// Lanes of a workgroup along x, y and z.
    pub fn workgroup_size(&self) -> [u32; 3] {
        self.program.workgroup_size
    }

    /// Bytes of workgroup memory, each variable rounded up to 16.
    pub fn workgroup_memory(&self) -> u32 {
        self.program.workgroup_memory
    }

    /// The variables of workgroup memory that the kernel uses, by name, and their bytes.
    pub fn workgroup_variables(&self) -> Vec<(&str, u32)> {
        let variables = self.program.globals.iter().filter(|global| global.space == program::Space::Workgroup);
        variables.map(|global| (global.name.as_str(), global.size)).collect()
    }
}
