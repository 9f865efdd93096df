# What ordinary containers may do beyond what capabilities, namespaces and seccomp leave them. It has the name and the
# meaning of dockerd's profile: whichever engine comes first loads it, and tools that look for it find it.
profile docker-default flags=(attach_disconnected, mediate_deleted) {
  capability,
  file,
  network,
  umount,

  # Whoever can mount can show every path below under another name.
  deny mount,

  # /proc: processes' own directories stay writable, what belongs to the machine does not. The sizes of System V shared
  # memory (/proc/sys/kernel/shm*) belong to the IPC namespace.
  deny /proc/* w,
  deny /proc/{[^0-9s],s[^y],sy[^s],sys?}*/** w,
  deny /proc/sys/{[^k],k[^e],ke[^r]}** w,
  deny /proc/sys/kernel/{[^s],s[^h],sh[^m]}** w,
  deny /proc/{kcore,sysrq-trigger} rwklx,

  # /sys: control groups alone, within what the mount allows; firmware, power readings (CVE-2020-8694) and the security
  # modules' own files are not even read.
  deny /sys/{[^f],f[^s]}** wklx,
  deny /sys/fs/{[^c],c[^g],cg[^r]}** wklx,
  deny /sys/{firmware,devices/virtual/powercap,kernel/security}/** rwklx,

  # Processes of one profile are kept apart by their pid namespaces; an engine has to be able to end them.
  signal (send, receive) peer=docker-default,
  signal (receive) peer=unconfined,
  ptrace (read, readby, trace, tracedby) peer=docker-default,
}
