use spark3d::device::Gpu;
use spark3d::ops::cases;
use std::rc::Rc;
fn main() {
    let gpu = Rc::new(Gpu::open("auto").unwrap());
    println!("{} / {}", gpu.facts().name, gpu.facts().driver);
    for (name, setup) in cases::benchmarks() {
        let session = setup.session(&gpu).unwrap();
        let mut best: Vec<(&str, f64, f64)> = Vec::new();
        for _ in 0..3 {
            let mut now: Vec<(&str, f64, f64)> = Vec::new();
            for t in session.run_timed(0).unwrap().unwrap() {
                match now.iter_mut().find(|b| b.0 == t.label) {
                    Some(b) => {
                        b.1 += t.seconds;
                        b.2 += t.flops;
                    }
                    None => now.push((t.label, t.seconds, t.flops)),
                }
            }
            if best.is_empty() {
                best = now;
            } else {
                for (b, n) in best.iter_mut().zip(now) {
                    b.1 = b.1.min(n.1);
                }
            }
        }
        for (l, s, f) in best {
            if l.starts_with("conv") {
                println!("{name:40} {l:26} {:8.2} ms {:7.1} GFLOP/s", s * 1e3, f / s / 1e9);
            }
        }
    }
}
