//! Control flow of lanes that part ways, functions, variables, built-in values, constants.

mod support;

use shader_interpreter::{Buffer, Error, Kernel, Launch, Options, run};
use support::{bindings, kinds, on_words, read_words, run_clean, words};

#[test]
fn lanes_take_different_branches_and_turns() {
    let body = "var sum = 0u;
        for (var k = 0u; k < i; k++) { if k == 3u { continue; } if k == 7u { break; } sum += k; }
        if i % 2u == 0u { sum += 100u; } else if i % 3u == 0u { sum += 200u; } else { sum += 300u; }
        r[i] = sum;";
    let expected: Vec<u32> = (0..40u32)
        .map(|i| {
            let sum: u32 = (0..i.min(7)).filter(|k| *k != 3).sum();
            sum + if i % 2 == 0 {
                100
            } else if i % 3 == 0 {
                200
            } else {
                300
            }
        })
        .collect();
    assert_eq!(on_words(40, body, &[0], 40), expected);
}

#[test]
fn switches_loops_and_early_returns() {
    let body = "var x = 0u;
        switch i { case 0u, 5u: { x = 1u; } case 1u: { if a[0] == 7u { break; } x = 9u; } default: { x = i * 10u; } }
        loop { x += 1u; if x > 20u { break; } continuing { x += 1u; break if x > 12u; } }
        while x < i * 3u { x *= 2u; }
        r[i] = x;
        if i == 3u { return; }
        r[i] += 1000u;";
    let expected: Vec<u32> = (0..8u32)
        .map(|i| {
            let mut x = match i {
                0 | 5 => 1,
                1 => 0,
                _ => i * 10,
            };
            loop {
                x += 1;
                if x > 20 {
                    break;
                }
                x += 1;
                if x > 12 {
                    break;
                }
            }
            while x < i * 3 {
                x *= 2;
            }
            x + if i == 3 { 0 } else { 1000 }
        })
        .collect();
    assert_eq!(on_words(8, body, &[7], 8), expected);
}

#[test]
fn nested_loops_with_lengths_of_their_own() {
    let body = "var sum = 0u;
        for (var y = 0u; y < i % 5u; y++) { for (var x = y; x < i; x++) { if x > 8u { break; } sum += x * y + 1u; } }
        r[i] = sum;";
    let expected: Vec<u32> = (0..32u32)
        .map(|i| (0..i % 5).map(|y| (y..i).take_while(|x| *x <= 8).map(|x| x * y + 1).sum::<u32>()).sum())
        .collect();
    assert_eq!(on_words(32, body, &[0], 32), expected);
}

#[test]
fn functions_return_early_and_keep_their_lanes_apart() {
    let source = "
        struct Pair { low: u32, high: vec2<u32> }
        @group(0) @binding(0) var<storage, read_write> r: array<u32>;
        fn collatz(start: u32) -> u32 {
            var x = start;
            for (var k = 0u; k < 1000u; k++) { if x <= 1u { return k; } if x % 2u == 0u { x /= 2u; } else { x = 3u * x + 1u; } }
            return 9999u;
        }
        fn pair(i: u32) -> Pair { if i > 3u { return Pair(i, vec2<u32>(1u, 2u)); } return Pair(7u, vec2<u32>(collatz(i), i)); }
        @compute @workgroup_size(16) fn main(@builtin(local_invocation_index) i: u32) {
            let p = pair(i);
            var q = p; q.high.y += collatz(i + 1u);
            if i % 2u == 0u { q.low = collatz(27u); }
            r[i] = q.low * 10000u + q.high.x * 100u + q.high.y;
        }";
    let mut buffers = [Buffer::new(64)];
    run_clean(source, 32, &mut buffers);
    let collatz = |mut x: u32| {
        let mut steps = 0;
        while x > 1 {
            x = if x.is_multiple_of(2) { x / 2 } else { 3 * x + 1 };
            steps += 1;
        }
        steps
    };
    let expected: Vec<u32> = (0..16)
        .map(|i| {
            let (low, x, y) = if i > 3 { (i, 1, 2) } else { (7, collatz(i), i) };
            let low = if i % 2 == 0 { collatz(27) } else { low };
            low * 10000 + x * 100 + y + collatz(i + 1)
        })
        .collect();
    assert_eq!(read_words(&buffers[0]), expected);
}

#[test]
fn variables_in_loops_start_anew_and_arrays_take_indices_of_lanes() {
    let source = "
        const TABLE = array<u32, 4>(3u, 1u, 4u, 1u);
        var<private> count: u32 = 5u;
        @group(0) @binding(0) var<storage, read_write> r: array<u32>;
        fn next() -> u32 { count += 1u; return count; }
        @compute @workgroup_size(8) fn main(@builtin(local_invocation_index) i: u32) {
            var all: array<vec2<u32>, 8>;
            for (var k = 0u; k < 8u; k++) { var fresh: u32; fresh += k * i; all[(k + i) % 8u].y = fresh; all[k].x += next(); }
            var table = TABLE;
            r[i] = all[i].y + 100u * all[7].x + 10000u * table[i % 4u];
        }";
    let mut buffers = [Buffer::new(32)];
    run_clean(source, 8, &mut buffers);
    // all[i].y is what k = 0 stored, and 0.
    let expected: Vec<u32> = (0..8).map(|i| 1300 + 10000 * [3, 1, 4, 1][i % 4]).collect();
    assert_eq!(read_words(&buffers[0]), expected);
}

#[test]
fn built_in_values() {
    let source = "@group(0) @binding(0) var<storage, read_write> r: array<vec4<u32>>;
        @compute @workgroup_size(4, 2, 2) fn main(@builtin(workgroup_id) w: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
            @builtin(local_invocation_id) l: vec3<u32>, @builtin(global_invocation_id) g: vec3<u32>, @builtin(local_invocation_index) i: u32) {
            let at = (w.y * n.x + w.x) * 16u + i;
            r[at] = vec4<u32>(l.x + 10u * l.y + 100u * l.z, g.x + 10u * g.y + 100u * g.z, i, n.y);
        }";
    let mut buffers = [Buffer::new(6 * 16 * 16)];
    let only = [[1, 0, 0], [2, 1, 0]];
    let bindings = bindings(&buffers);
    let launch = Launch {
        workgroups: [3, 2, 1],
        only: Some(&only),
        subgroup_size: 8,
        bindings: &bindings,
        options: Options::default(),
    };
    let report = run(&support::kernel(source), &launch, &mut buffers).unwrap();
    assert_eq!(kinds(&report), []);
    assert_eq!((report.counts.workgroups, report.counts.invocations), (2, 32));
    let found = read_words(&buffers[0]);
    let lane = |group: usize, i: usize| &found[(group * 16 + i) * 4..][..4];
    assert_eq!(lane(1, 13), [111, 115, 13, 2]);
    assert_eq!(lane(5, 6), [12, 2 * 4 + 2 + 10 * 3, 6, 2]);
    assert!(!buffers[0].written[0], "a workgroup ran that should not");
}

#[test]
fn built_in_values_of_subgroups() {
    let source = "struct Members { @builtin(subgroup_id) s: u32, @builtin(subgroup_invocation_id) m: u32 }
        @group(0) @binding(0) var<storage, read_write> r: array<vec4<u32>>;
        @compute @workgroup_size(40) fn main(members: Members, @builtin(local_invocation_index) i: u32,
            @builtin(subgroup_size) size: u32, @builtin(num_subgroups) count: u32) {
            r[i] = vec4<u32>(members.s, members.m, size, count);
        }";
    let mut buffers = [Buffer::new(40 * 16)];
    run_clean(source, 16, &mut buffers);
    let found = read_words(&buffers[0]);
    assert_eq!(found[37 * 4..][..4], [2, 5, 16, 3]);
    assert_eq!(found[15 * 4..][..4], [0, 15, 16, 3]);
}

#[test]
fn overrides_take_values_or_keep_their_own() {
    let source =
        "override SIZE: u32 = 4u; override SCALE: f32 = 1.5; override WIDE: bool = false; @id(7) override MORE: i32;
        var<workgroup> held: array<f32, SIZE>;
        @group(0) @binding(0) var<storage, read_write> r: array<f32>;
        @compute @workgroup_size(SIZE) fn main(@builtin(local_invocation_index) i: u32) {
            held[i] = f32(i) * SCALE + f32(MORE); workgroupBarrier(); var x = held[SIZE - 1u - i];
            if WIDE { x += 100.0; } r[i] = x;
        }";
    let kernel = Kernel::new(source, "main", &[("SIZE", 8.0), ("7", -1.0), ("WIDE", 1.0)]).unwrap();
    assert_eq!((kernel.workgroup_size(), kernel.workgroup_memory()), ([8, 1, 1], 32));
    assert_eq!(kernel.workgroup_variables(), [("held", 32)]);
    let mut buffers = [Buffer::new(32)];
    let bindings = bindings(&buffers);
    let options = Options::default();
    let launch = Launch { workgroups: [1; 3], only: None, subgroup_size: 8, bindings: &bindings, options };
    let report = run(&kernel, &launch, &mut buffers).unwrap();
    assert_eq!(kinds(&report), []);
    let expected: Vec<f32> = (0..8).rev().map(|i| i as f32 * 1.5 + 99.0).collect();
    assert_eq!(support::read_floats(&buffers[0]), expected);
    assert!(matches!(Kernel::new(source, "main", &[]), Err(Error::Rejected(_))));
    assert!(matches!(Kernel::new(source, "other", &[("7", 0.0)]), Err(Error::Invalid(_))));
}

#[test]
fn overrides_beside_barriers_that_naga_cannot_prove_uniform() {
    let source = "@id(3) override SIZE: u32 = 4u; // lanes
        override
            LATE: bool; override DOUBLE: u32 = SIZE * 2u;
        @group(0) @binding(0) var<storage, read_write> r: array<u32>;
        @compute @workgroup_size(DOUBLE) fn main(@builtin(local_invocation_index) i: u32) {
            if LATE && i / DOUBLE == 0u { workgroupBarrier(); } if i < 4u { workgroupBarrier(); }
            r[i] = SIZE;
        }";
    let run = |constants: &[(&str, f64)]| {
        let kernel = Kernel::new(source, "main", constants).unwrap_or_else(|error| panic!("{error}"));
        let mut buffers = [Buffer::new(64)];
        let bindings = bindings(&buffers);
        let options = Options::default();
        let launch = Launch { workgroups: [1; 3], only: None, subgroup_size: 4, bindings: &bindings, options };
        let report = run(&kernel, &launch, &mut buffers).unwrap();
        let faults: Vec<String> = report.faults.iter().map(|fault| fault.at[..7].to_string()).collect();
        (kernel.workgroup_size()[0], report.counts.barriers, faults, read_words(&buffers[0])[3])
    };
    assert_eq!(run(&[("3", 8.0), ("LATE", 1.0)]), (16, 2, vec!["line 6,".to_string()], 8));
    assert_eq!(run(&[("3", 2.0), ("LATE", 0.0)]), (4, 1, vec![], 2));
    assert!(matches!(Kernel::new(source, "main", &[]), Err(Error::Rejected(_))));
    assert!(matches!(Kernel::new(source, "main", &[("LATE", 1.0), ("NONE", 1.0)]), Err(Error::Rejected(_))));
}

#[test]
fn layouts_of_structs_and_lengths_of_arrays() {
    let source = "struct Inner { v: vec3<f32>, w: u32, m: mat3x3<f32> }
        struct Params { first: u32, inner: array<Inner, 2>, last: vec2<u32> }
        struct Tail { count: u32, rest: array<vec2<u32>> }
        @group(0) @binding(0) var<uniform> params: Params;
        @group(0) @binding(1) var<storage, read_write> r: Tail;
        @compute @workgroup_size(2) fn main(@builtin(local_invocation_index) i: u32) {
            let p = params.inner[i];
            r.rest[i] = vec2<u32>(u32(p.v.z + p.m[2].y) + p.w, arrayLength(&r.rest) + params.last.y);
            if i == 0u { r.count = params.first; }
        }";
    // Inner: v at 0, w at 12, m at 16 with columns of 16 bytes; 64 bytes. Params: first at 0, inner at 16, last at 144; 160 bytes.
    let mut params = vec![0u32; 40];
    params[0] = 77;
    for k in 0..2 {
        let at = 4 + 16 * k;
        params[at + 2] = (k as f32 + 5.0).to_bits();
        params[at + 3] = 1000;
        params[at + 4 + 2 * 4 + 1] = 30f32.to_bits();
    }
    params[37] = 9;
    let mut buffers = [words(&params), words(&[0; 10])];
    run_clean(source, 8, &mut buffers);
    // 40 bytes, 8 of them before the array: 4 elements.
    assert_eq!(read_words(&buffers[1])[..6], [77, 0, 1035, 13, 1036, 13]);
}

#[test]
fn atomics_add_up_and_do_not_race_among_themselves() {
    let source = "var<workgroup> local: atomic<u32>;
        @group(0) @binding(0) var<storage, read_write> r: array<atomic<u32>>;
        @group(0) @binding(1) var<storage, read_write> old: array<u32>;
        @compute @workgroup_size(64) fn main(@builtin(workgroup_id) w: vec3<u32>, @builtin(local_invocation_index) i: u32) {
            if i == 0u { atomicStore(&local, 0u); }
            workgroupBarrier();
            old[w.x * 64u + i] = atomicAdd(&local, i);
            atomicMax(&r[1], w.x * 64u + i);
            workgroupBarrier();
            if i == 5u { atomicAdd(&r[0], atomicLoad(&local)); }
            let e = atomicCompareExchangeWeak(&r[2], 64u * w.x + i, 64u * w.x + i + 1u);
            if e.exchanged { atomicAdd(&r[3], 1u); }
        }";
    let mut buffers = [words(&[0; 4]), Buffer::new(512)];
    let report = support::run_with(source, 2, 32, &mut buffers);
    assert_eq!(kinds(&report), []);
    assert_eq!(read_words(&buffers[0]), [2 * 2016, 127, 128, 128]);
    assert_eq!(read_words(&buffers[1])[3], 3);
}

#[test]
fn what_is_not_supported_is_said() {
    let says = |body: &str, what: &str| {
        let source = format!(
            "@group(0) @binding(0) var<storage, read_write> r: array<f32>;
            fn put(p: ptr<function, f32>) {{ *p = 1.0; }}
            @compute @workgroup_size(8) fn main(@builtin(local_invocation_index) i: u32) {{ {body} }}"
        );
        match Kernel::new(&source, "main", &[]) {
            Err(Error::Unsupported(found)) => assert!(found.contains(what), "{found}"),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("{what} is supported"),
        }
    };
    says("r[i] = modf(r[i]).fract;", "Modf");
    says("var x = 0.0; put(&x); r[i] = x;", "Pointer");
    says("r[i] = determinant(mat2x2<f32>(1.0, 2.0, 3.0, r[i]));", "Determinant");
    says("r[i] = quadSwapX(r[i]);", "Quad");
    says("subgroupBarrier();", "barrier");
    assert!(matches!(Kernel::new("fn", "main", &[]), Err(Error::Rejected(_))));
}
