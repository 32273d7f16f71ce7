// Samples of the region -> coefficients of the cubic B-spline through them along one axis; the signal is mirrored at its first and
// last sample. The recursion of src/data/resample/spline.rs: forward y[k] = x[k] + z y[k-1], then backward c[k] = z (c[k+1] - y[k]).
// One line an invocation. With FIRST, samples are read from `region`; otherwise c changes in place.

#import augment
#import parts

{{ volume("region", "read", 2, 4) }}
{{ volume("c", "read_write", 3, 3 + PARTS) }}
{{ writable("c") }}

override FIRST: bool = false;

const POLE: f32 = -0.26794919243112270;
// Samples that the start of the forward recursion sums up: the pole to this power is 1e-18.
const REACH: u32 = 32u;

fn value(i: u32) -> f32 {
    if FIRST { return region(i); }
    return c(i);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let line = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    let s = sampled.region;
    let n = s[params.axis];
    if line >= s.x * s.y * s.z / n { return; }
    // Neighbouring lines are neighbours in memory, but along the last axis.
    let stride = vec3<u32>(s.y * s.z, s.z, 1u)[params.axis];
    let slow = line / stride;
    let base = slow * stride * n + line - slow * stride;
    if n < 2u {
        set_c(base, value(base));
        return;
    }

    var sum = value(base);
    var power = POLE;
    let reach = min(n, REACH);
    for (var k = 1u; k < reach; k++) {
        sum += value(base + k * stride) * power;
        power *= POLE;
    }
    if reach == n {
        // A short line is mirrored again and again: a geometric series over its period.
        for (var k = n - 2u; k > 0u; k--) {
            sum += value(base + k * stride) * power;
            power *= POLE;
        }
        sum /= 1.0 - power;
    }
    var before = sum;
    var y = sum;
    set_c(base, y);
    for (var k = 1u; k < n; k++) {
        before = y;
        y = value(base + k * stride) + POLE * y;
        set_c(base + k * stride, y);
    }
    y = POLE / (POLE * POLE - 1.0) * (POLE * before + y);
    set_c(base + (n - 1u) * stride, 6.0 * y);
    for (var k = n - 1u; k > 0u; k--) {
        let at = base + (k - 1u) * stride;
        y = POLE * (y - c(at));
        set_c(at, 6.0 * y);
    }
}
