// Sum over a workgroup in a fixed order: the same bits every time. WORKGROUP is a power of two.
var<workgroup> reduce_scratch: array<vec4<f32>, WORKGROUP>;

fn workgroup_sum(lane: u32, value: vec4<f32>) -> vec4<f32> {
    reduce_scratch[lane] = value;
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half = half / 2u) {
        if lane < half { reduce_scratch[lane] += reduce_scratch[lane + half]; }
        workgroupBarrier();
    }
    let sum = reduce_scratch[0];
    workgroupBarrier();
    return sum;
}
