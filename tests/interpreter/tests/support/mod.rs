//! Short ways to run small kernels. Each test file uses some of them.
#![allow(dead_code, reason = "each test uses a part of it")]

use shader_interpreter::{Binding, Buffer, FaultKind, Kernel, Launch, Options, Report, run};

pub fn words(values: &[u32]) -> Buffer {
    Buffer::from_bytes(values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
}

pub fn floats(values: &[f32]) -> Buffer {
    Buffer::from_bytes(values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
}

pub fn halves(values: &[f32]) -> Buffer {
    let bytes = values.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes());
    Buffer::from_bytes(bytes.collect::<Vec<u8>>())
}

pub fn read_words(buffer: &Buffer) -> Vec<u32> {
    buffer.bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

pub fn read_floats(buffer: &Buffer) -> Vec<f32> {
    read_words(buffer).into_iter().map(f32::from_bits).collect()
}

pub fn read_halves(buffer: &Buffer) -> Vec<f32> {
    buffer.bytes.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
}

/// Binds buffer k to binding k as a whole.
pub fn bindings(buffers: &[Buffer]) -> Vec<Binding> {
    let whole = |(k, b): (usize, &Buffer)| Binding { binding: k as u32, buffer: k, offset: 0, size: b.bytes.len() };
    buffers.iter().enumerate().map(whole).collect()
}

pub fn kernel(source: &str) -> Kernel {
    Kernel::new(source, "main", &[]).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs workgroups along x in subgroups of `subgroup` lanes.
pub fn run_with(source: &str, workgroups: u32, subgroup: u32, buffers: &mut [Buffer]) -> Report {
    let bindings = bindings(buffers);
    let options = Options { step_limit: 1_000_000, ..Options::default() };
    let launch =
        Launch { workgroups: [workgroups, 1, 1], only: None, subgroup_size: subgroup, bindings: &bindings, options };
    run(&kernel(source), &launch, buffers).unwrap_or_else(|error| panic!("{error}"))
}

pub fn kinds(report: &Report) -> Vec<FaultKind> {
    report.faults.iter().map(|fault| fault.kind).collect()
}

/// Runs one workgroup, which must be free of faults.
pub fn run_clean(source: &str, subgroup: u32, buffers: &mut [Buffer]) -> Report {
    let report = run_with(source, 1, subgroup, buffers);
    let faults: Vec<String> = report.faults.iter().map(ToString::to_string).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    report
}

/// One workgroup of `lanes` lanes that computes `body` for a lane `i`, with the inputs a (binding 0) and output r (binding 1).
pub fn on_words(lanes: u32, body: &str, input: &[u32], outputs: usize) -> Vec<u32> {
    let source = format!(
        "enable f16;
        @group(0) @binding(0) var<storage, read> a: array<u32>;
        @group(0) @binding(1) var<storage, read_write> r: array<u32>;
        @compute @workgroup_size({lanes})
        fn main(@builtin(local_invocation_index) i: u32) {{ {body} }}"
    );
    let mut buffers = [words(input), Buffer::new(outputs * 4)];
    run_clean(&source, 32, &mut buffers);
    assert!(buffers[1].written.iter().all(|written| *written), "the kernel leaves out results");
    read_words(&buffers[1])
}

/// The same for floats.
pub fn on_floats(lanes: u32, body: &str, input: &[f32], outputs: usize) -> Vec<f32> {
    let source = format!(
        "enable f16;
        @group(0) @binding(0) var<storage, read> a: array<f32>;
        @group(0) @binding(1) var<storage, read_write> r: array<f32>;
        @compute @workgroup_size({lanes})
        fn main(@builtin(local_invocation_index) i: u32) {{ {body} }}"
    );
    let mut buffers = [floats(input), Buffer::new(outputs * 4)];
    run_clean(&source, 32, &mut buffers);
    assert!(buffers[1].written.iter().all(|written| *written), "the kernel leaves out results");
    read_floats(&buffers[1])
}
