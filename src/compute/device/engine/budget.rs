//! How long dispatches and submissions may take: operating systems reset a GPU that does not answer for a second or two, and the
//! desktop stands still as long.

use super::Engine;
use crate::base::Result;
use crate::compute::device::{
    AdapterFacts, Backend, Budget, Dispatch, Dynamic, Heap, Kernel, Recording, Slice, Speed, Timekeeping, Workgroups,
};
use std::time::Instant;

/// Windows resets a GPU after two seconds, macOS after some more. Estimates may be off by several times.
const DISPATCH: f64 = 0.1;
const SUBMISSION: f64 = 0.25;

impl Budget {
    /// Of an adapter: a software one has no watchdog. `SPARK3D_SUBMISSION_MS=MILLISECONDS` is for tests.
    pub fn of(facts: &AdapterFacts) -> Option<Self> {
        let given = std::env::var("SPARK3D_SUBMISSION_MS").ok().and_then(|text| text.parse::<f64>().ok());
        match given.filter(|ms| *ms > 0.0) {
            Some(ms) => Some(Self { dispatch: (ms * 1e-3).min(DISPATCH), submission: ms * 1e-3 }),
            None => (!facts.is_software()).then_some(Self { dispatch: DISPATCH, submission: SUBMISSION }),
        }
    }

    /// Makes it at least as large as a dispatch needs.
    pub(super) fn dispatch(&mut self, seconds: f64) {
        self.dispatch = self.dispatch.max(seconds);
    }

    /// Makes it at least as large as a submission needs.
    pub(super) fn submission(&mut self, seconds: f64) {
        self.submission = self.submission.max(seconds);
    }
}

impl Timekeeping {
    /// How many times longer than at its [`Speed`] an adapter is taken to need until runs have shown how long it needs.
    pub const UNKNOWN: f64 = 4.0;
}

/// Bounds of how many times longer than at [`Speed`] runs may show that dispatches need. Matrix units and wider vectors than the
/// measurement's are faster than it.
pub(super) const SLOWNESS_RANGE: [f64; 2] = [0.25, 32.0];

impl Speed {
    /// Seconds of a dispatch that reaches it.
    pub fn seconds(&self, flops: f64, bytes: f64) -> f64 {
        (flops / self.flops).max(bytes / self.bytes)
    }
}

/// Invocations of a measurement, and bytes of a copy.
const INVOCATIONS: usize = 1 << 18;
const COPY_BYTES: u64 = 32 << 20;
/// A measurement this long is not disturbed by its start.
const LONG_ENOUGH: f64 = 2e-3;
const WORKGROUP: usize = 64;
/// Multiply-adds of a chain of `bench/fma` in a round, each on four lanes, each two operations, times its chains.
const FLOPS_A_ROUND: f64 = 4.0 * 4.0 * 2.0 * 4.0;

impl Engine {
    /// Measures the speed of the adapter within some milliseconds.
    pub(super) fn measure_speed(&self) -> Result<Speed> {
        let bytes = COPY_BYTES.min(self.facts.max_binding).min(self.facts.max_buffer) / 4096 * 4096;
        let (x, y) = (self.create(bytes)?, self.create(bytes)?);
        let measured = || -> Result<Speed> {
            self.clear(&[x, y]);
            let buffer = |heap| if heap == Heap::Arena(0) { x } else { y };
            let slice = |heap| Slice { heap, offset: 0, size: bytes };
            let time = |kernel: Kernel, params: [u32; 4], bindings: Vec<Slice>, invocations: usize| -> Result<f64> {
                let workgroups = Workgroups::folded(invocations, WORKGROUP, 1);
                let dispatch = Dispatch {
                    kernel,
                    params: bytemuck::cast_slice(&params).to_vec(),
                    bindings,
                    workgroups,
                    label: "speed",
                    layer: String::new(),
                    mask: None,
                    cost: None,
                    flops: 0.0,
                    bytes: 0.0,
                };
                let program = self.compile_program(&Recording { dispatches: vec![dispatch] }, &buffer, None)?;
                let mut best = f64::INFINITY;
                for run in 0..3 {
                    let start = Instant::now();
                    self.run_steps(&program, &Dynamic::default())?;
                    self.wait()?;
                    if run > 0 {
                        best = best.min(start.elapsed().as_secs_f64());
                    }
                }
                Ok(best)
            };
            let [never, factor, summand] = [-1f32, 0.999, 0.001].map(f32::to_bits);
            let arithmetic = |rounds| {
                time(
                    Kernel::new("bench/fma"),
                    [rounds, never, factor, summand],
                    vec![slice(Heap::Arena(0))],
                    INVOCATIONS,
                )
            };
            let (mut rounds, mut seconds) = (4u32, arithmetic(4)?);
            while rounds < 1 << 16 && seconds < LONG_ENOUGH {
                rounds *= 4;
                seconds = arithmetic(rounds)?;
            }
            let flops = FLOPS_A_ROUND * f64::from(rounds) * INVOCATIONS as f64 / seconds;
            let invocations = (bytes / 16) as u32;
            let both = vec![slice(Heap::Arena(0)), slice(Heap::Arena(1))];
            let seconds = time(Kernel::new("bench/copy"), [invocations, 0, 0, 0], both, invocations as usize)?;
            Ok(Speed { flops, bytes: 2.0 * bytes as f64 / seconds })
        };
        let speed = measured();
        self.destroy(x);
        self.destroy(y);
        speed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_software_adapter_has_no_watchdog() {
        let facts = |kind: &str| AdapterFacts { kind: kind.into(), ..AdapterFacts::default() };
        assert_eq!(Budget::of(&facts("Cpu")), None);
        assert_eq!(Budget::of(&facts("DiscreteGpu")), Some(Budget { dispatch: 0.1, submission: 0.25 }));
    }
}
