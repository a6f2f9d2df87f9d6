//! Containers on the real kernel, under each runtime, as a plain user. This program is its own stage, launcher, init
//! and probe: it is static, so the guest's root needs nothing else.

mod bounds;
mod closed;
mod guest;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::process::ExitCode;

use coracle_runtime::{
    Access, Bind, Bounds, Ender, JobOutput, Mount, Outcome, PROGRAM, Rootfs, Runtime, SandboxSpec, Session,
    StageSetup, id_map_of_user,
};
use libtest_mimic::{Arguments, Failed, Trial};

type TestResult = Result<(), Failed>;
type Test = (&'static str, fn(Runtime) -> TestResult);

fn main() -> ExitCode {
    if let Some(code) = coracle_runtime::take_over(|_| 0) {
        return ExitCode::from(u8::try_from(code).unwrap_or(125));
    }
    let name = std::env::args().next().unwrap_or_default();
    if name == "/probe" {
        return guest::probe();
    }
    let tests: [Test; 26] = [
        ("an_id_that_is_not_mapped_is_refused", unmapped_id),
        ("the_outputs_can_be_opened_by_name", open_outputs),
        ("an_exit_status_and_both_outputs_come_back", exit_status_and_outputs),
        ("a_signal_is_told_from_an_exit_status", killed_by_signal),
        ("nothing_can_be_gained_inside", nothing_can_be_gained),
        ("a_file_for_one_container_is_read_only_and_gone_afterwards", closed::ephemeral_file),
        ("an_input_is_the_process_s_alone", closed::input),
        ("a_missing_program_is_named", missing_program),
        ("what_the_phase_leaves_running_ends_with_it", survivors_end),
        ("what_the_caller_left_open_stays_with_it", leaked_descriptor),
        ("a_guest_that_may_not_write_cannot", closed::read_only_mount),
        ("an_image_may_have_150_layers", many_layers),
        ("abstract_sockets_of_the_host_are_out_of_reach", closed::abstract_socket),
        ("a_bind_brings_neither_devices_nor_setuid_programs", closed::bind_flags),
        ("a_mount_below_another_is_refused", closed::nested_mount),
        ("a_link_in_the_place_of_what_was_checked_is_not_followed", closed::linked_source),
        ("no_memory_is_dumped", closed::no_dumps),
        ("a_guest_has_a_keyring_of_its_own", closed::own_keyring),
        ("a_call_under_another_abi_ends_the_process", bounds::other_abi),
        ("a_guest_without_network_has_loopback_and_nothing_else", bounds::no_network),
        ("time_that_is_over_ends_everything", bounds::time_is_over),
        ("who_does_not_heed_the_end_is_ended", bounds::deaf),
        ("who_is_outside_ends_it_and_says_why", bounds::ended_from_outside),
        ("what_is_not_to_be_written_is_not", bounds::writes),
        ("a_file_does_not_grow_without_end", bounds::large_file),
        ("a_working_folder_of_the_kernel_is_refused", bounds::working_folder),
    ];
    let mut trials = Vec::new();
    for runtime in [Runtime::Youki, Runtime::Crun, Runtime::Runc] {
        for (name, test) in tests {
            trials.push(Trial::test(format!("{runtime:?}::{name}").to_lowercase(), move || {
                if nix::unistd::geteuid().is_root() {
                    return Err(
                        "these tests show what a plain user can do; run them as one (scripts/test does)"
                            .into(),
                    );
                }
                test(runtime)
            }));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

struct Run {
    outcome: Result<Outcome, String>,
    stdout: String,
    stderr: String,
}

impl Run {
    fn facts(&self) -> BTreeMap<&str, &str> {
        self.stdout.lines().filter_map(|line| line.split_once('=')).collect()
    }
}

fn spec(runtime: Runtime, acts: &[&str]) -> SandboxSpec {
    let mut argv = vec!["/probe".to_owned()];
    argv.extend(acts.iter().map(|act| (*act).to_owned()));
    SandboxSpec {
        id: "test".to_owned(),
        runtime,
        rootfs: Rootfs::Empty,
        argv,
        env: vec![("PATH".to_owned(), "/bin".to_owned())],
        cwd: "/".into(),
        uid: 1000,
        gid: 1000,
        mounts: vec![Mount { source: PROGRAM.into(), target: "/probe".into(), access: Access::ReadOnly }],
        files: Vec::new(),
        bounds: Bounds::default(),
        input: None,
    }
}

fn run(spec: SandboxSpec, binds: Vec<Bind>) -> Result<Run, Failed> {
    run_and_hold(spec, binds, drop)
}

fn run_and_hold(spec: SandboxSpec, binds: Vec<Bind>, hold: fn(Ender)) -> Result<Run, Failed> {
    let setup = StageSetup { binds, host_programs: spec.runtime != Runtime::Youki, worker_env: Vec::new() };
    let session = Session::start(id_map_of_user()?, &setup)?;
    let (out_reader, stdout) = std::io::pipe()?;
    let (err_reader, stderr) = std::io::pipe()?;
    let read = |mut pipe: std::io::PipeReader| {
        std::thread::spawn(move || {
            let mut text = String::new();
            pipe.read_to_string(&mut text).map(|_| text)
        })
    };
    let (out, err) = (read(out_reader), read(err_reader));
    let outcome = session
        .launch(spec, JobOutput { stdout: stdout.into(), stderr: stderr.into() }, hold)
        .map_err(|error| error.to_string());
    drop(session);
    let text = |thread: std::thread::JoinHandle<std::io::Result<String>>| -> Result<String, Failed> {
        Ok(thread.join().map_err(|_| "a reader failed")??)
    };
    Ok(Run { outcome, stdout: text(out)?, stderr: text(err)? })
}

#[track_caller]
fn same<T: PartialEq + std::fmt::Debug>(got: T, expected: T, run: &Run) {
    assert_eq!(got, expected, "outcome {:?}\nstdout: {}\nstderr: {}", run.outcome, run.stdout, run.stderr);
}

fn exit_status_and_outputs(runtime: Runtime) -> TestResult {
    let run = run(spec(runtime, &["ids", "err:to standard error", "exit:7"]), Vec::new())?;
    same(run.outcome.clone(), Ok(Outcome::Exited(7)), &run);
    same(run.stdout.as_str(), "ids=1000:1000\n", &run);
    assert!(run.stderr.contains("to standard error"), "{}", run.stderr);
    Ok(())
}

fn killed_by_signal(runtime: Runtime) -> TestResult {
    let run = run(spec(runtime, &["abort"]), Vec::new())?;
    same(run.outcome.clone(), Ok(Outcome::Killed(6)), &run);
    Ok(())
}

fn nothing_can_be_gained(runtime: Runtime) -> TestResult {
    let acts = [
        "status:CapEff",
        "status:CapBnd",
        "status:CapPrm",
        "status:CapInh",
        "status:CapAmb",
        "status:NoNewPrivs",
        "status:Seccomp",
        "status:SigBlk",
        "status:Seccomp_filters",
        "unshare",
        "mount",
        "mknod",
        "kill",
        "cat:/proc/self/uid_map",
        "socket:route",
        "socket:audit",
        "call:400",
        "call:2000",
        "limit:files",
        "limit:processes",
        "limit:queues",
        "limit:locked",
        "limit:nice",
        "limit:real-time",
        "cat:/proc/self/oom_score_adj",
        "list:/proc/self/fd",
        "list:/sys",
        "write:/proc/sys/kernel/core_pattern",
        "cat:/proc/keys",
        "cat:/proc/1/cmdline",
        "list:/proc/1/fd",
        "write:/proc/1/fd/3",
        "cat:/proc/1/environ",
    ];
    let run = run(spec(runtime, &acts), Vec::new())?;
    let facts = run.facts();
    for set in ["CapEff", "CapBnd", "CapPrm", "CapInh", "CapAmb"] {
        same(facts[format!("status:{set}").as_str()], "0000000000000000", &run);
    }
    same(facts["status:NoNewPrivs"], "1", &run);
    same(facts["status:Seccomp"], "2", &run);
    same(facts["status:SigBlk"], "0000000000000000", &run);
    same(facts["socket:route"], "done", &run);
    same(facts["socket:audit"], "EPERM", &run);
    same(facts["unshare"], "EPERM", &run);
    // A hole below the newest call of the list, and a call newer than all of them.
    same((facts["call:400"], facts["call:2000"]), ("EPERM", "ENOSYS"), &run);
    for (limit, at_most) in [
        ("limit:files", 524_288),
        ("limit:processes", 8192),
        ("limit:queues", 0),
        ("limit:locked", 8 << 20),
        ("limit:nice", 0),
        ("limit:real-time", 0),
    ] {
        let hard = facts[limit].split(' ').nth(1).and_then(|hard| hard.parse::<u64>().ok());
        assert!(hard.is_some_and(|hard| hard <= at_most), "{}", run.stdout);
    }
    same(facts["cat:/proc/self/oom_score_adj"], "500", &run);
    same(facts["mount"], "EPERM", &run);
    // Landlock says EACCES before the missing capability says EPERM, where the kernel has it.
    assert!(["EACCES", "EPERM"].contains(&facts["mknod"]), "{}", run.stdout);
    same(
        facts["cat:/proc/self/uid_map"].split_whitespace().collect::<Vec<_>>(),
        vec!["0", "1", "65536"],
        &run,
    );
    // 0, 1, 2 and the one that lists the folder.
    same(facts["list:/proc/self/fd"], "0,1,2,3", &run);
    same(facts["list:/sys"], "", &run);
    assert_ne!(facts["write:/proc/sys/kernel/core_pattern"], "written");
    same(facts["cat:/proc/keys"], "", &run);
    for act in ["list:/proc/1/fd", "write:/proc/1/fd/3", "cat:/proc/1/environ"] {
        same(facts[act], "PermissionDenied", &run);
    }
    same(facts["cat:/proc/1/cmdline"].trim_matches('\0'), "/.coracle/init", &run);
    Ok(())
}

fn missing_program(runtime: Runtime) -> TestResult {
    let mut missing = spec(runtime, &[]);
    missing.argv = vec!["/bin/absent".to_owned()];
    let run = run(missing, Vec::new())?;
    let expected = "container test could not be run: could not execute /bin/absent: No such file or directory (os error 2)";
    same(run.outcome.clone(), Err(expected.to_owned()), &run);
    Ok(())
}

fn unmapped_id(runtime: Runtime) -> TestResult {
    for (uid, gid) in [(u32::MAX, 1000), (1000, 65_536)] {
        let mut foreign = spec(runtime, &["ids"]);
        (foreign.uid, foreign.gid) = (uid, gid);
        let run = run(foreign, Vec::new())?;
        let id = if uid == u32::MAX { uid } else { gid };
        let expected = format!(
            "container test could not be run: id {id} is outside the 65536 ids that a container has here"
        );
        same(run.outcome.clone(), Err(expected), &run);
    }
    Ok(())
}

fn open_outputs(runtime: Runtime) -> TestResult {
    let run = run(spec(runtime, &["append:/proc/self/fd/1", "append:/proc/self/fd/2"]), Vec::new())?;
    assert!(run.stdout.contains("append:/proc/self/fd/1=appended"), "{}", run.stdout);
    assert!(run.stdout.contains("append:/proc/self/fd/2=appended"), "{}", run.stdout);
    same(run.stderr.as_str(), "x\n", &run);
    Ok(())
}

fn survivors_end(runtime: Runtime) -> TestResult {
    // The child inherits the output pipes: were it alive, reading them would last a minute.
    let run = run(spec(runtime, &["spawn", "exit:0"]), Vec::new())?;
    same(run.outcome.clone(), Ok(Outcome::Exited(0)), &run);
    same(run.facts()["spawn"], "started", &run);
    Ok(())
}

fn leaked_descriptor(runtime: Runtime) -> TestResult {
    // Without close-on-exec, as C libraries open theirs.
    let leaked = nix::unistd::pipe()?;
    let run = run(spec(runtime, &["list:/proc/self/fd"]), Vec::new())?;
    drop(leaked);
    // 0, 1, 2 and the one that lists the folder.
    same(run.facts()["list:/proc/self/fd"], "0,1,2,3", &run);
    Ok(())
}

fn many_layers(runtime: Runtime) -> TestResult {
    // Paths as long as a store's: together far more than the page of options that mount(2) takes.
    let folder = tempfile::tempdir()?;
    let layer = |number: usize| format!("{number}-{}", "x".repeat(64));
    for number in 0..150 {
        let path = folder.path().join(layer(number)).join("content");
        fs::create_dir_all(&path)?;
        fs::write(path.join(number.to_string()), "")?;
        fs::write(path.join("topmost"), number.to_string())?;
    }
    let scratch = folder.path().join("scratch");
    fs::create_dir(&scratch)?;
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mut layered = spec(runtime, &["list:/content", "cat:/content/topmost"]);
    let lower = (0..150).map(|number| format!("/store/{}", layer(number)).into()).collect();
    layered.rootfs = Rootfs::Overlay { lower, scratch: "/store/scratch".into() };
    let binds =
        vec![Bind { source: folder.path().into(), target: "/store".into(), access: Access::ReadWrite }];
    let run = run(layered, binds);
    // What the container left there belongs to its ids.
    let status = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--map-auto", "rm", "-rf", "--"])
        .arg(&scratch)
        .status()?;
    assert!(status.success());
    let run = run?;
    same(run.facts()["list:/content"].split(',').count(), 151, &run);
    same(run.facts()["cat:/content/topmost"], "149", &run);
    Ok(())
}
