//! Random operations on one file against an array of bytes, with and without faults and grants.

use std::time::Duration;

use dfs_client::{Client, FileHandle, SetAttrs};
use dfs_proto::meta::Recall;
use dfs_proto::request::Op;
use dfs_proto::status::Status;

use crate::fake::{FakeNet, Fault, WHO, pattern};
use crate::{RW, get, make, put};

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn plan_fault(net: &FakeNet, dice: &mut Dice) {
    let op = [Op::Write, Op::Read, Op::Commit, Op::MapRead, Op::Setattr][dice.below(5) as usize];
    let fault = match dice.below(5) {
        0 => Fault::LoseReply,
        1 => Fault::LoseRequest,
        2 => Fault::Answer(Status::Recovering),
        3 => Fault::Slow(Duration::from_millis(30)),
        _ => Fault::Unreachable { dead: false },
    };
    net.fault(op, fault);
}

async fn punch(client: &Client<FakeNet>, file: &FileHandle, model: &mut Vec<u8>, at: u64, dice: &mut Dice) {
    let len = [50, 5000, 70_000][dice.below(3) as usize];
    client.punch(file, at, len).await.unwrap();
    let from = (at as usize).min(model.len());
    let to = ((at + len) as usize).min(model.len());
    model[from..to].fill(0);
    if dice.below(4) == 0 {
        client.extend(file, at + len).await.unwrap();
        model.resize(model.len().max((at + len) as usize), 0);
    }
}

async fn run(seed: u64, faults: bool, recalls: bool) {
    let net = FakeNet::new();
    let client = net.client_with(|config| config.seed = seed).await.0;
    let mut file = make(&client, "a").await;
    let ino = file.ino();
    let mut model: Vec<u8> = Vec::new();
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for step in 0..150 {
        let at = dice.below(200_000);
        if faults && dice.below(4) == 0 {
            plan_fault(&net, &mut dice);
        }
        match dice.below(11) {
            0..=3 => {
                let len = [50, 5000, 70_000][dice.below(3) as usize] as usize;
                let data = pattern(len, step as u8);
                put(&client, &file, at, &data).await;
                let from = at as usize;
                if model.len() < from + len {
                    model.resize(from + len, 0);
                }
                model[from..from + len].copy_from_slice(&data);
            }
            4..=6 => {
                let len = 1 + dice.below(100_000);
                let from = (at as usize).min(model.len());
                let to = (at as usize + len as usize).min(model.len());
                let bytes = get(&client, &file, at, len as u32).await;
                assert!(bytes == model[from..to], "seed {seed}, step {step}: read at {at} of {len}");
            }
            10 => punch(&client, &file, &mut model, at, &mut dice).await,
            7 => {
                let set = SetAttrs { size: Some(at), ..SetAttrs::default() };
                let attr = client.setattr(ino, None, set, WHO).await.unwrap();
                assert_eq!(attr.size, at);
                model.resize(at as usize, 0);
            }
            8 => {
                if dice.below(2) == 0 {
                    client.fsync(&file, dice.below(2) == 0).await.unwrap();
                } else {
                    client.flush(&file).await.unwrap();
                    client.release(file);
                    tokio::time::sleep(Duration::from_millis(dice.below(30))).await;
                    file = client.open(ino, RW, false, WHO).await.unwrap();
                }
                assert_eq!(client.getattr(ino).await.unwrap().size, model.len() as u64);
            }
            _ => {
                let grant = net.world().master.files[&ino].grant;
                if let Some((_, grant)) = grant.filter(|_| recalls) {
                    net.notify(&Recall { ino, grant: grant.id });
                }
                tokio::time::sleep(Duration::from_micros(dice.below(3000))).await;
            }
        }
    }
    net.world().faults.clear();
    client.flush(&file).await.unwrap();
    let all = get(&client, &file, 0, 1 << 20).await;
    assert!(all == model, "seed {seed}: the file differs at the end");
    assert_eq!(net.world().master.files[&ino].attr.size, model.len() as u64);
    client.release(file);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(client.memory_used(), 0, "seed {seed}");
}

/// An hour of the paused clock is far more than any run needs: whoever is not done then waits for ever.
async fn bounded(seed: u64, faults: bool, recalls: bool) {
    let done = tokio::time::timeout(Duration::from_secs(3600), run(seed, faults, recalls)).await;
    assert!(done.is_ok(), "seed {seed} hangs");
}

#[tokio::test(start_paused = true)]
async fn like_an_array() {
    for seed in 1..30 {
        bounded(seed, false, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn like_an_array_under_faults() {
    for seed in 1..40 {
        bounded(seed, true, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn like_an_array_under_faults_and_recalls() {
    for seed in 1..40 {
        bounded(seed, true, true).await;
    }
}
