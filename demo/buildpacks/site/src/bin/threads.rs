//! Runs before the server starts, where it starts (exec.d): as many threads as there are processors, unless the
//! user has chosen.

use std::collections::HashMap;
use std::env;
use std::thread::available_parallelism;

use libcnb::data::exec_d::ExecDProgramOutputKey;
use libcnb::data::exec_d_program_output_key;
use libcnb::exec_d::write_exec_d_program_output;

fn main() {
    let mut variables: HashMap<ExecDProgramOutputKey, String> = HashMap::new();
    if env::var_os("SITE_THREADS").is_none() {
        let processors = available_parallelism().map_or(1, usize::from);
        variables.insert(exec_d_program_output_key!("SITE_THREADS"), processors.to_string());
    }
    write_exec_d_program_output(variables);
}
