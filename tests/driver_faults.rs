//! What drivers do that they should not: compile a kernel wrongly, drop commands, stop answering.

mod support;

use spark3d::base::Result;
use spark3d::compute::device::{Backend, BufferId, Dynamic, Gpu, Heap, KernelTable, Range, Recording};
use spark3d::compute::graph::Precision;
use spark3d::compute::ops::cases;
use std::any::Any;
use std::rc::Rc;
use support::{adapter, gpu};

/// A driver that computes one family of kernels wrongly: it takes the inputs of their first channels for zero.
struct Wrong {
    device: Box<dyn Backend>,
    shaders: [&'static str; 2],
}

impl Backend for Wrong {
    fn create(&self, size: u64) -> Result<BufferId> {
        self.device.create(size)
    }
    fn destroy(&self, buffer: BufferId) {
        self.device.destroy(buffer);
    }
    fn write(&self, buffer: BufferId, offset: u64, bytes: &[u8]) {
        self.device.write(buffer, offset, bytes);
    }
    fn clear(&self, buffers: &[BufferId]) {
        self.device.clear(buffers);
    }
    fn read(&self, ranges: &[Range]) -> Result<Vec<u8>> {
        self.device.read(ranges)
    }
    fn wait(&self) -> Result<()> {
        self.device.wait()
    }
    fn compile(&self, recording: &Recording, buffer: &dyn Fn(Heap) -> BufferId) -> Result<Box<dyn Any>> {
        let mut recording = recording.clone();
        // Half of the workgroups do nothing.
        for d in recording.dispatches.iter_mut().filter(|d| self.shaders.contains(&d.kernel.shader)) {
            let [x, y, z] = d.workgroups.most();
            d.workgroups = spark3d::compute::device::Workgroups::Fixed([x.div_ceil(2), y, z.div_ceil(2)]);
        }
        self.device.compile(&recording, buffer)
    }
    fn run(&self, program: &dyn Any, dynamic: &Dynamic) -> Result<()> {
        self.device.run(program, dynamic)
    }
}

/// The device of the machine, whose driver computes the family wrongly where `wrong`.
fn device(family: &str, shaders: [&'static str; 2], wrong: bool) -> Rc<Gpu> {
    let gpu = Gpu::open(&adapter()).unwrap();
    gpu.set_kernels(KernelTable::force(family));
    Rc::new(if wrong { gpu.wrapped(|device| Box::new(Wrong { device, shaders })) } else { gpu })
}

#[test]
fn a_family_of_kernels_that_is_wrong_is_set_aside() {
    let families = [
        ("staged", ["conv3d/staged", "conv3d/weight_gradient_staged"]),
        ("gathered", ["conv3d/weight_gradient_gathered"; 2]),
        ("winograd", ["winograd/product"; 2]),
    ];
    for (family, shaders) in families {
        let case = cases::cases().into_iter().find(|c| c.name == "sparse conv3d 3x3x3, many tiles").unwrap();
        for wrong in [false, true] {
            let gpu = device(family, shaders, wrong);
            // Right either way.
            let deviations = case.check(&gpu).unwrap();
            assert!(deviations.iter().all(|d| d.accepted()), "{family}, {wrong}: {deviations:?}");
            let checks = gpu.family_checks();
            let check = checks.iter().find(|c| c.family == family).expect("it was to be used");
            assert_eq!(check.agrees, !wrong, "{check:?}");
            assert_eq!(gpu.kernels().excluded.contains(family), wrong);
            assert!(if wrong { check.deviation > 0.1 } else { check.deviation < 1e-5 }, "{check:?}");
            // And a table that is set later does not bring it back.
            gpu.set_kernels(KernelTable::default());
            assert_eq!(gpu.kernels().excluded.contains(family), wrong);
        }
    }
}

#[test]
fn a_device_that_does_not_answer_is_given_up_with_what_it_was_at() {
    let gpu = gpu();
    let case = &cases::cases_in(Precision::F32)[0];
    let (session, graph) = case.setup.session(&gpu).unwrap();
    session.run(graph).unwrap();
    gpu.stall();
    let error = gpu.wait().unwrap_err().to_string();
    let name = &gpu.facts().name;
    assert!(error.contains(&format!("{name} did not answer for")), "{error}");
    assert!(error.contains("while running") && error.contains("SPARK3D_TIMEOUT"), "{error}");
}
