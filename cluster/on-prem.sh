#!/usr/bin/env bash
# A Ray cluster on machines that you reach by ssh: see cluster/README.md, "Your own machines".
#
#   cluster/on-prem.sh plan  HOSTS   print the commands
#   cluster/on-prem.sh start HOSTS   distribute the token, start Ray on every host
#   cluster/on-prem.sh stop  HOSTS   `ray stop` on every host: all Ray of your user there
#
# HOSTS is a file with one "host role" a line; the first line's role is head, the others' teacher
# or student (any word is a label: role=<word>). # begins a comment. From the environment:
#   RAY_BIN              ray on the hosts, the same path on each; default: .venv/bin/ray here
#   RAY_AUTH_TOKEN_PATH  the token's file here; made if there is none; default: ~/.ray/auth_token
#   RAY_PORT             of the head; default: 6379
set -euo pipefail

refuse() {
    echo "on-prem.sh: $1" >&2
    exit 2
}

[[ $# == 2 && $1 =~ ^(plan|start|stop)$ ]] || refuse "usage: on-prem.sh plan|start|stop HOSTS"
action=$1
[[ -r $2 ]] || refuse "no readable file $2: write one 'host role' a line"
ray_bin=${RAY_BIN:-$PWD/.venv/bin/ray}
token=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
port=${RAY_PORT:-6379}

hosts=() roles=()
while read -r host role rest; do
    [[ -z $host ]] && continue
    [[ $host =~ ^[A-Za-z0-9][A-Za-z0-9._@-]*$ && ${role:-} =~ ^[a-z0-9]([a-z0-9-]*[a-z0-9])?$ && -z $rest ]] ||
        refuse "$2: '$host ${role:-}${rest:+ $rest}' is not 'host role'"
    hosts+=("$host") roles+=("$role")
done < <(sed 's/#.*//' "$2")
[[ ${#hosts[@]} -gt 0 && ${roles[0]} == head ]] || refuse "$2: the first host must have the role head"
head=${hosts[0]#*@}

# The token is read from ~/.ray/auth_token; a command line would show it to every user of a host.
command_of() { # role
    local common="RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 $ray_bin"
    if [[ $1 == head ]]; then
        # No CPUs: the head keeps to the driver. The dashboard is reached by ssh -L.
        echo "$common start --head --port=$port --dashboard-host=127.0.0.1 --num-cpus=0" \
            "--labels=role=head"
    else
        echo "$common start --address=$head:$port --labels=role=$1"
    fi
}

on() { # host command, stdin is passed on
    ssh -o BatchMode=yes -o ConnectTimeout=10 "$1" "$2"
}

case $action in
plan)
    for i in "${!hosts[@]}"; do
        echo "${hosts[i]}: $(command_of "${roles[i]}")"
    done
    ;;
start)
    if [[ ! -e $token ]]; then
        (umask 077 && mkdir -p "$(dirname "$token")" &&
            od -An -tx1 -N32 /dev/urandom | tr -d ' \n' >"$token")
        echo "a new token in $token"
    fi
    [[ $(stat -Lc %a "$token") =~ 00$ ]] ||
        refuse "$token can be read by others: chmod 600 $token"
    for i in "${!hosts[@]}"; do
        echo "==> ${hosts[i]} (${roles[i]})"
        on "${hosts[i]}" 'umask 077; mkdir -p ~/.ray; cat >~/.ray/auth_token.new &&
            mv ~/.ray/auth_token.new ~/.ray/auth_token' <"$token"
        on "${hosts[i]}" "$(command_of "${roles[i]}")" </dev/null
    done
    echo "==> ssh -L 8265:127.0.0.1:8265 ${hosts[0]}, then: ray job submit --address http://127.0.0.1:8265 -- …"
    ;;
stop)
    for ((i = ${#hosts[@]} - 1; i >= 0; i--)); do # the head last
        echo "==> ${hosts[i]}"
        on "${hosts[i]}" "$ray_bin stop" </dev/null || echo "    not stopped" >&2
    done
    ;;
esac
