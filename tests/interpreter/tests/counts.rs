//! Counts on kernels that are counted by hand.

mod support;

use shader_interpreter::{Buffer, Counts};
use support::{floats, run_clean, run_with, words};

fn counts(lanes: u32, subgroup: u32, body: &str) -> Counts {
    let source = format!(
        "@group(0) @binding(0) var<uniform> n: vec4<u32>;
        @group(0) @binding(1) var<storage, read> a: array<u32>;
        @group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
        @group(0) @binding(3) var<storage, read_write> r: array<u32>;
        var<workgroup> held: array<u32, 2048>;
        var<workgroup> wide: array<vec4<f32>, 512>;
        @compute @workgroup_size({lanes}) fn main(@builtin(local_invocation_index) i: u32) {{ {body} }}"
    );
    let mut buffers = [words(&[0; 4]), words(&vec![1; 4096]), floats(&[1.0; 4096]), Buffer::new(4096 * 4)];
    run_clean(&source, subgroup, &mut buffers).counts
}

#[test]
fn sectors_of_loads_and_stores() {
    let sectors = |subgroup, body: &str| {
        let counts = counts(64, subgroup, body);
        (counts.global_load_sectors, counts.global_load_bytes, counts.global_store_sectors, counts.global_store_bytes)
    };
    // 64 lanes of 4 bytes: 8 sectors, whatever the subgroup.
    assert_eq!(sectors(32, "r[i] = a[i];"), (8, 256, 8, 256));
    assert_eq!(sectors(8, "r[i] = a[i];"), (8, 256, 8, 256));
    // Off by one: one sector more for each subgroup.
    assert_eq!(sectors(32, "r[i] = a[i + 1u];").0, 10);
    assert_eq!(sectors(8, "r[i] = a[i + 1u];").0, 16);
    // Strides of 2 and of a sector.
    assert_eq!(sectors(32, "r[i] = a[i * 2u];").0, 16);
    assert_eq!(sectors(32, "r[i] = a[i * 8u];").0, 64);
    assert_eq!(sectors(32, "r[i] = a[i * 16u];").0, 64);
    // All lanes at one place: once a subgroup. Backwards is no worse than forwards.
    assert_eq!(sectors(32, "r[i] = a[7];").0, 2);
    assert_eq!(sectors(32, "r[i] = a[63u - i];").0, 8);
    // Every other lane.
    assert_eq!(sectors(32, "if i % 2u == 0u { r[i] = a[i]; }"), (8, 128, 8, 128));
    // Vectors of 16 bytes: 2 lanes a sector.
    assert_eq!(sectors(32, "r[i] = u32(v[i].x);").0, 8 * 4);
    assert_eq!(sectors(32, "let x = v[i]; r[i] = u32(x.x);").0, 32);
}

#[test]
fn uniforms_are_apart() {
    let counts = counts(64, 32, "r[i] = n.x;");
    assert_eq!((counts.uniform_bytes, counts.global_load_sectors, counts.global_load_bytes), (256, 0, 0));
}

#[test]
fn conflicts_of_banks() {
    // One subgroup of 32 lanes stores, then the store of the same place once more: 2 instructions.
    let cycles = |lanes, subgroup, index: &str| {
        let counts = counts(lanes, subgroup, &format!("held[{index}] = i; r[i] = 0u;"));
        let worst = counts.worst_conflict.clone().unwrap();
        assert!(worst.source.contains("held["), "{}", worst.source);
        assert_eq!(counts.by_line[&worst.line].bank_cycles, counts.bank_cycles);
        (counts.workgroup_accesses, counts.bank_cycles, counts.bank_cycles_ideal, worst.ways)
    };
    assert_eq!(cycles(32, 32, "i"), (1, 1, 1, 1));
    assert_eq!(cycles(32, 32, "31u - i"), (1, 1, 1, 1));
    assert_eq!(cycles(32, 32, "i * 2u"), (1, 2, 1, 2));
    assert_eq!(cycles(32, 32, "i * 8u"), (1, 8, 1, 8));
    assert_eq!(cycles(32, 32, "i * 32u"), (1, 32, 1, 32));
    assert_eq!(cycles(32, 32, "i * 33u"), (1, 1, 1, 1));
    // Several subgroups; subgroups of 64 are served in two phases, small ones conflict less.
    assert_eq!(cycles(64, 32, "i * 32u"), (2, 64, 2, 32));
    assert_eq!(cycles(64, 64, "i * 2u"), (1, 4, 2, 2));
    assert_eq!(cycles(32, 8, "i * 32u"), (4, 32, 4, 8));
}

#[test]
fn a_word_that_several_lanes_read_is_delivered_once() {
    let body = |index: &str| {
        format!(
            "if i == 0u {{ for (var k = 0u; k < 2048u; k++) {{ held[k] = 1u; }} }} workgroupBarrier(); r[i] = held[{index}];"
        )
    };
    let read = |index: &str| counts(32, 32, &body(index)).bank_cycles - 2048;
    assert_eq!(read("0"), 1);
    assert_eq!(read("i / 2u"), 1);
    assert_eq!(read("(i / 2u) * 32u"), 16);
    assert_eq!(read("(i % 2u) * 32u"), 2);
}

#[test]
fn wide_accesses_go_in_phases() {
    let cycles = |index: &str| {
        let counts = counts(32, 32, &format!("wide[{index}] = vec4<f32>(1.0); r[i] = 0u;"));
        (counts.bank_cycles, counts.bank_cycles_ideal, counts.workgroup_store_bytes)
    };
    // 8 lanes of 16 bytes fill the banks.
    assert_eq!(cycles("i"), (4, 4, 512));
    assert_eq!(cycles("i * 2u"), (8, 4, 512));
    assert_eq!(cycles("i * 8u"), (32, 4, 512));
    assert_eq!(cycles("i * 9u"), (4, 4, 512));
    let pairs = "@group(0) @binding(0) var<storage, read_write> r: array<u32>;
        var<workgroup> held: array<vec2<f32>, 64>;
        @compute @workgroup_size(32) fn main(@builtin(local_invocation_index) i: u32) { held[i * 2u] = vec2<f32>(1.0); r[i] = 0u; }";
    let counts = run_clean(pairs, 32, &mut [Buffer::new(128)]).counts;
    assert_eq!((counts.bank_cycles, counts.bank_cycles_ideal), (4, 2));
}

#[test]
fn cooperative_rows_meet_banks() {
    let source = |row: u32| {
        format!(
            "enable f16; enable wgpu_cooperative_matrix;
            @group(0) @binding(0) var<storage, read_write> r: array<f16>;
            var<workgroup> held: array<vec4<f16>, {}>;
            @compute @workgroup_size(32) fn main(@builtin(local_invocation_index) i: u32) {{
                for (var k = i; k < {}u; k += 32u) {{ held[k] = vec4<f16>(); }}
                workgroupBarrier();
                coopStoreT(coopLoadT<coop_mat8x8<f16, C>>(&held[0], {row}u), &r[0], 8u);
            }}",
            row * 8,
            row * 8
        )
    };
    let conflict = |row: u32| {
        let counts = run_clean(&source(row), 32, &mut [Buffer::new(128)]).counts;
        let line = counts.by_line.values().rfind(|line| line.bank_cycles > 0).unwrap();
        assert_eq!(counts.global_store_sectors, 4);
        (line.bank_cycles, line.bank_cycles_ideal)
    };
    // Rows of 16 bytes of the matrix lie `row` vectors of 8 bytes apart.
    assert_eq!(conflict(2), (1, 1));
    assert_eq!(conflict(4), (2, 1));
    assert_eq!(conflict(16), (8, 1));
    assert_eq!(conflict(18), (1, 1));
}

#[test]
fn operations_barriers_and_instructions() {
    let body = "let x = f32(a[i]); let p = vec4<f32>(x) * 2.0 + vec4<f32>(1.0); let q = fma(p, p, p);
        workgroupBarrier();
        r[i] = u32(dot(q, p)) + (a[i] ^ 3u) * 5u + u32(sqrt(x));";
    let counts = counts(64, 32, body);
    // 4 products, 4 sums, 4 fused, and 7 of the dot product.
    assert_eq!(counts.float_operations, 64 * (4 + 4 + 8 + 7));
    assert_eq!(counts.special_operations, 64);
    assert_eq!(counts.integer_operations, 64 * 4);
    assert_eq!((counts.barriers, counts.workgroups, counts.invocations), (1, 1, 64));
    assert!(counts.instructions > 2 * 20 && counts.instructions < 2 * 40, "{}", counts.instructions);
    let by_line: u64 = counts.by_line.values().map(|line| line.float_operations).sum();
    assert_eq!(by_line, counts.float_operations);
}

#[test]
fn instructions_count_subgroups_with_an_active_lane() {
    let source = |bound: u32| {
        format!(
            "@group(0) @binding(0) var<storage, read_write> r: array<u32>;
            @compute @workgroup_size(64) fn main(@builtin(local_invocation_index) i: u32) {{ var x = i;
            if i < {bound}u {{ x = x * 3u; }}
            r[i] = x; }}"
        )
    };
    let of_line = |bound: u32| {
        let counts = run_clean(&source(bound), 16, &mut [Buffer::new(256)]).counts;
        let line = &counts.by_line[&3];
        (line.instructions, line.integer_operations)
    };
    let (none, _) = of_line(0);
    let (one, operations) = of_line(1);
    let (all, all_operations) = of_line(64);
    assert_eq!((all - none, operations, all_operations), (4 * (one - none), 1, 64));
    let twice = run_with(&source(64), 1, 16, &mut [Buffer::new(256)]).counts;
    assert_eq!(twice.workgroups, 1);
}
