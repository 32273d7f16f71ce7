//! Each kind of fault in a small kernel, and the same kernel without it.

mod support;

use FaultKind::*;
use shader_interpreter::{Binding, Buffer, FaultKind, Launch, Options, Report, run};
use support::{bindings, floats, kernel, kinds, run_with, words};

fn shader(body: &str) -> String {
    format!(
        "@group(0) @binding(0) var<uniform> n: vec4<u32>;
        @group(0) @binding(1) var<storage, read> a: array<u32>;
        @group(0) @binding(2) var<storage, read_write> r: array<u32>;
        var<workgroup> held: array<u32, 64>;
        var<workgroup> wide: array<vec4<f32>, 64>;
        fn zero() -> u32 {{ return n.x; }}
        @compute @workgroup_size(64) fn main(@builtin(local_invocation_index) i: u32, @builtin(workgroup_id) w: vec3<u32>) {{ {body} }}"
    )
}

/// Runs two workgroups.
fn faults(body: &str) -> Report {
    let mut buffers = [words(&[0, 1, 2, 3]), words(&[5; 128]), Buffer::new(512)];
    run_with(&shader(body), 2, 32, &mut buffers)
}

fn found(body: &str) -> Vec<FaultKind> {
    kinds(&faults(body))
}

#[test]
fn races_in_workgroup_memory() {
    let barrier = "workgroupBarrier();";
    let read = "r[w.x * 64u + i] = held[63u - i];";
    assert_eq!(found(&format!("held[i] = i; {barrier} {read}")), []);
    assert_eq!(found(&format!("held[i] = i; {read}")), [Race]);
    // Also within a subgroup, and of neighbours.
    assert_eq!(found("held[i] = i; r[w.x * 64u + i] = held[i ^ 1u];"), [Race]);
    assert_eq!(found("held[i] = i; r[w.x * 64u + i] = held[i];"), []);
    // Equal values are no excuse.
    assert_eq!(found(&format!("held[i / 2u] = 7u; {barrier} r[w.x * 64u + i] = held[i / 2u];")), [Race]);
    assert_eq!(found(&format!("if i < 32u {{ held[i] = 7u; }} {barrier} r[w.x * 64u + i] = held[i / 2u];")), []);
    // A write after a read, which an order of lanes would hide.
    let turn = |middle: &str| {
        format!(
            "held[i] = i; {barrier} let x = held[(i + 1u) % 64u]; {middle} held[i] = x; {barrier} r[w.x * 64u + i] = held[i];"
        )
    };
    assert_eq!(found(&turn(barrier)), []);
    assert_eq!(found(&turn("")), [Race]);
    // The barrier of the other memory does not help.
    assert_eq!(found(&turn("storageBarrier();")), [Race]);
    // Components of one vector do not meet.
    let components =
        "wide[i / 4u][i % 4u] = f32(i); workgroupBarrier(); r[w.x * 64u + i] = u32(wide[i / 4u][(i + 1u) % 4u]);";
    assert_eq!(found(components), []);
    assert_eq!(found(&components.replace("workgroupBarrier();", "")), [Race]);
}

#[test]
fn a_missing_barrier_in_a_reduction_is_found() {
    let reduction = |barrier: &str| {
        format!(
            "held[i] = a[i]; workgroupBarrier();
            for (var half = 32u; half > 0u; half /= 2u) {{ if i < half {{ held[i] += held[i + half]; }} {barrier} }}
            if i == 0u {{ r[w.x * 64u] = held[0]; }}"
        )
    };
    assert_eq!(found(&reduction("workgroupBarrier();")), []);
    let report = faults(&reduction(""));
    assert_eq!(kinds(&report), [Race]);
    let text = report.faults[0].to_string();
    assert!(text.contains("held[") && text.contains("lane") && text.contains("line 8"), "{text}");
}

#[test]
fn races_in_storage() {
    let exchange = |barrier: &str| {
        format!("let at = w.x * 64u; r[at + i] = i; {barrier} let x = r[at + 63u - i]; {barrier} r[at + i] = x;")
    };
    assert_eq!(found(&exchange("storageBarrier();")), []);
    assert_eq!(found(&exchange("")), [Race, Race]);
    assert_eq!(found(&exchange("workgroupBarrier();")), [Race, Race]);
    assert_eq!(found("r[w.x] = 7u;"), [Race]);
    assert_eq!(found("if i == 0u { r[w.x] = 7u; }"), []);
}

#[test]
fn races_between_workgroups() {
    assert_eq!(found("r[w.x * 64u + i] = i;"), []);
    assert_eq!(found("r[i] = i;"), [RaceBetweenWorkgroups]);
    assert_eq!(
        found("r[w.x * 64u + i] = i; storageBarrier(); let x = r[i]; storageBarrier(); r[w.x * 64u + i] = x;"),
        [RaceBetweenWorkgroups]
    );
    // The first workgroup reads what the second writes, and reads itself before.
    let late = "if w.x == 0u { r[64u + i] = 0u; }";
    assert_eq!(found(&format!("{late} r[w.x * 64u + i] = i;")), [RaceBetweenWorkgroups]);
    let mut buffers = [words(&[0; 4]), words(&[5; 128]), words(&[0; 128])];
    let read_first = "let x = r[64u + i]; storageBarrier(); if w.x == 1u { r[64u + i] = x + 1u; }";
    assert_eq!(kinds(&run_with(&shader(read_first), 2, 32, &mut buffers)), [RaceBetweenWorkgroups]);
    assert_eq!(
        kinds(&run_with(&shader("let x = r[64u + i]; r[w.x * 64u + i] = 1u + x * 0u;"), 1, 32, &mut buffers)),
        []
    );
}

#[test]
fn plain_accesses_race_with_atomic_ones() {
    let source = |body: &str| {
        format!(
            "struct Both {{ count: atomic<u32>, plain: u32 }}
            @group(0) @binding(0) var<storage, read_write> r: array<Both>;
            @group(0) @binding(1) var<storage, read_write> same: array<u32>;
            @compute @workgroup_size(8) fn main(@builtin(local_invocation_index) i: u32) {{ {body} }}"
        )
    };
    let run = |body: &str| {
        let mut buffers = [words(&[0; 16])];
        let whole = |binding| Binding { binding, buffer: 0, offset: 0, size: 64 };
        let bindings = [whole(0), whole(1)];
        let options = Options::default();
        let launch = Launch { workgroups: [1; 3], only: None, subgroup_size: 8, bindings: &bindings, options };
        kinds(&run_kernel(&source(body), &launch, &mut buffers))
    };
    assert_eq!(run("atomicAdd(&r[0].count, 1u); r[i].plain = same[1u + 2u * i];"), []);
    assert_eq!(run("atomicAdd(&r[0].count, 1u); r[i].plain = same[0];"), [Race]);
}

fn run_kernel(source: &str, launch: &Launch, buffers: &mut [Buffer]) -> Report {
    run(&kernel(source), launch, buffers).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn memory_that_nobody_wrote() {
    assert_eq!(
        found("if i > 0u { held[i] = i; } workgroupBarrier(); r[w.x * 64u + i] = held[63u - i];"),
        [Uninitialised]
    );
    assert_eq!(found("held[i] = i; workgroupBarrier(); r[w.x * 64u + i] = held[63u - i];"), []);
    // What an earlier workgroup left there does not count.
    let second = "if w.x == 0u { held[i] = i; } workgroupBarrier(); r[w.x * 64u + i] = held[i];";
    let report = faults(second);
    assert_eq!(kinds(&report), [Uninitialised]);
    assert_eq!(report.faults[0].workgroup, [1, 0, 0]);
    assert_eq!(report.faults[0].times, 64);
    // Part of a vector.
    let part =
        |what: &str| format!("wide[i].x = 1.0; wide[i].y = 2.0; workgroupBarrier(); r[w.x * 64u + i] = u32({what});");
    assert_eq!(found(&part("wide[63u - i].y")), []);
    assert_eq!(found(&part("wide[63u - i].z * 0.0")), [Uninitialised, ConversionOutOfRange]);
    // A buffer.
    assert_eq!(found("let at = w.x * 64u + i; r[at] = i; r[at] += 1u;"), []);
    assert_eq!(found("let at = w.x * 64u + i; r[at] += 1u;"), [Uninitialised]);
    // Local variables start as zero.
    assert_eq!(found("var x: array<u32, 4>; r[w.x * 64u + i] = x[i % 4u];"), []);
}

#[test]
fn padding_need_not_be_written() {
    let source = "struct Padded { v: vec3<f32>, n: u32, w: vec2<f32> }
        @group(0) @binding(0) var<storage, read_write> r: array<Padded>;
        @compute @workgroup_size(2) fn main(@builtin(local_invocation_index) i: u32) {
            r[i] = Padded(vec3<f32>(1.0), 2u, vec2<f32>(3.0)); let x = r[i]; r[i] = x;
        }";
    let mut buffers = [Buffer::new(64)];
    assert_eq!(kinds(&run_with(source, 1, 8, &mut buffers)), []);
    assert_eq!(buffers[0].written.iter().filter(|written| !**written).count(), 16);
}

#[test]
fn indices_out_of_range() {
    let ok = "let at = w.x * 64u + i; held[i] = 1u; workgroupBarrier(); r[at] = a[at] + held[63u - i];";
    assert_eq!(found(ok), []);
    assert_eq!(found(&ok.replace("a[at]", "a[at + 1u]")), [OutOfRange]);
    assert_eq!(found(&ok.replace("r[at]", "r[at + 64u]")), [RaceBetweenWorkgroups, OutOfRange][1..]);
    assert_eq!(found(&ok.replace("held[63u - i]", "held[62u - i]")), [OutOfRange]);
    assert_eq!(found(&ok.replace("held[i] =", "held[i + zero()] =")), []);
    assert_eq!(found("var x: array<u32, 4>; x[i % 5u] = 1u; r[w.x * 64u + i] = x[0];"), [OutOfRange]);
    assert_eq!(found("var x: array<u32, 4>; r[w.x * 64u + i] = x[i % 5u];"), [OutOfRange]);
    assert_eq!(found("let x = vec3<u32>(i); r[w.x * 64u + i] = x[i % 4u];"), [OutOfRange]);
    assert_eq!(found("var x = vec3<u32>(i); x[i % 4u] = 2u; r[w.x * 64u + i] = x.x;"), [OutOfRange]);
    assert_eq!(found("r[w.x * 64u + i] = a[bitcast<i32>(i) - 1];"), [OutOfRange]);
    let text = faults("r[w.x * 64u + i] = a[bitcast<i32>(i) - 1];").faults[0].to_string();
    assert!(text.contains("a[-1]") && text.contains("lane 0"), "{text}");
}

#[test]
fn a_binding_ends_before_its_buffer() {
    let run = |offset, size| {
        let mut buffers = [words(&[0, 1, 2, 3]), words(&[5; 128]), words(&[0; 128])];
        let mut bindings = bindings(&buffers);
        bindings[1] = Binding { binding: 1, buffer: 1, offset, size };
        let options = Options::default();
        let launch = Launch { workgroups: [1; 3], only: None, subgroup_size: 32, bindings: &bindings, options };
        kinds(&run_kernel(&shader("r[i] = a[i] + zero();"), &launch, &mut buffers))
    };
    assert_eq!(run(256, 256), []);
    assert_eq!(run(0, 252), [OutOfRange]);
    assert_eq!(run(128, 128), [OutOfRange]);
}

#[test]
fn a_uniform_that_is_bound_too_small() {
    let mut buffers = [words(&[0, 1, 2]), words(&[5; 128]), words(&[0; 128])];
    let report = run_with(&shader("r[w.x * 64u + i] = n.w;"), 1, 32, &mut buffers);
    assert_eq!(kinds(&report), [OutOfRange]);
}

#[test]
fn barriers_that_lanes_miss() {
    let end = "r[w.x * 64u + i] = 1u;";
    assert_eq!(found(&format!("workgroupBarrier(); {end}")), []);
    assert_eq!(found(&format!("if i < 32u {{ workgroupBarrier(); }} {end}")), [NonUniformBarrier]);
    assert_eq!(found(&format!("if w.x == 0u {{ workgroupBarrier(); }} {end}")), []);
    assert_eq!(
        found(&format!("for (var k = 0u; k < i / 32u + 1u; k++) {{ workgroupBarrier(); }} {end}")),
        [NonUniformBarrier]
    );
    assert_eq!(found(&format!("for (var k = 0u; k < w.x + 1u; k++) {{ workgroupBarrier(); }} {end}")), []);
    // Two barriers at different places are not one.
    let both = format!("if i < 32u {{ workgroupBarrier(); }} else {{ workgroupBarrier(); }} {end}");
    assert_eq!(found(&both), [NonUniformBarrier, NonUniformBarrier]);
    let returned = shader(&format!("if i == 63u {{ return; }} workgroupBarrier(); {end}"));
    let run = |lenient| {
        let mut buffers = [words(&[0, 1, 2, 3]), words(&[5; 128]), words(&[0; 128])];
        let bindings = bindings(&buffers);
        let options = Options { returned_lanes_may_miss_barriers: lenient, ..Options::default() };
        let launch = Launch { workgroups: [1; 3], only: None, subgroup_size: 32, bindings: &bindings, options };
        kinds(&run_kernel(&returned, &launch, &mut buffers))
    };
    assert_eq!(run(false), [NonUniformBarrier]);
    assert_eq!(run(true), []);
}

#[test]
fn arithmetic_without_a_result() {
    let result = |what: &str| found(&format!("r[w.x * 64u + i] = u32({what});"));
    assert_eq!(result("a[i] / (i + 1u)"), []);
    assert_eq!(result("a[i] / i"), [DivisionByZero]);
    assert_eq!(result("a[i] % i"), [DivisionByZero]);
    assert_eq!(result("bitcast<i32>(a[i] + 0x7ffffffbu) / (bitcast<i32>(i) - 1)"), [DivisionByZero]);
    assert_eq!(result("a[i] << (i / 2u)"), []);
    assert_eq!(result("a[i] << i"), [ShiftOverflow]);
    assert_eq!(result("a[i] >> i"), [ShiftOverflow]);
    assert_eq!(result("f32(i) * 4.0e7"), []);
    assert_eq!(result("f32(i) * 1.0e8"), [ConversionOutOfRange]);
    assert_eq!(result("f32(i) - 0.5"), []);
    assert_eq!(result("f32(i) - 1.0"), [ConversionOutOfRange]);
    assert_eq!(result("i32(-2147483648.0 - f32(i) * 256.0)"), [ConversionOutOfRange]);
    assert_eq!(result("i32(-2147483648.0 - f32(zero()) * 256.0)"), []);
    assert_eq!(result("sqrt(f32(i) - 1.0)"), [ConversionOutOfRange]);
    // Lanes that do not take part do not fault.
    assert_eq!(found("var x = 0u; if i > 0u { x = a[i] / i; } r[w.x * 64u + i] = x;"), []);
}

#[test]
fn loops_without_an_end() {
    let report = faults("var x = i; while x < 100u { x = x * 2u; } r[w.x * 64u + i] = x;");
    assert_eq!(kinds(&report), [Endless]);
    assert_eq!(report.faults[0].times, 2);
    assert_eq!(found("var x = i + 1u; while x < 100u { x = x * 2u; } r[w.x * 64u + i] = x;"), []);
}

#[test]
fn faults_are_kept_once_a_place_and_up_to_a_limit() {
    let body = "r[w.x * 64u + i] = a[i + 1000u]; r[w.x * 64u + i] = a[i + 2000u]; r[w.x * 64u + i] = a[i + 3000u];";
    let mut buffers = [words(&[0; 4]), words(&[5; 128]), floats(&[0.0; 128])];
    let bindings = bindings(&buffers);
    let options = Options { max_faults: 2, ..Options::default() };
    let launch = Launch { workgroups: [2, 1, 1], only: None, subgroup_size: 32, bindings: &bindings, options };
    let report = run_kernel(&shader(body), &launch, &mut buffers);
    assert_eq!(kinds(&report), [OutOfRange, OutOfRange]);
    assert_eq!((report.dropped_faults, report.faults[1].times), (1, 128));
}
