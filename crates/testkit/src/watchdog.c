/* Preloaded into a program, makes a Linux watchdog device of one path: the Unix socket on which the test listens.
 *
 * How requests are numbered and how their arguments are laid out is here, by the kernel's own header; what the device
 * does is in the test (watchdog.rs), which outlives the program as a device does. A write is a write to the socket, and
 * closing it, or dying, closes it. A request goes as a zero byte and a line, and is answered by a line: the error, and
 * the value. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/watchdog.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* As watchdog.rs has them. */
#define VARIABLE "PRIMACY_TEST_WATCHDOG"
#define CAN_SET_TIMEOUT 1
#define CAN_BE_CLOSED 2

typedef int open_function(const char *, int, ...);
typedef int ioctl_function(int, unsigned long, ...);

static int is_device_path(const char *path) {
    const char *device = getenv(VARIABLE);
    return device && path && !strcmp(path, device);
}

static int is_device(int fd) {
    struct sockaddr_un peer = {0};
    socklen_t length = sizeof peer;
    return !getpeername(fd, (struct sockaddr *)&peer, &length) && peer.sun_family == AF_UNIX &&
           is_device_path(peer.sun_path);
}

/* The value of the answer; -1 and errno if the device refuses. */
static int answer(int fd) {
    char line[64] = "";
    int error = EIO, value = -1;
    if (recv(fd, line, sizeof line - 1, 0) > 0)
        sscanf(line, "%d %d", &error, &value);
    errno = error;
    return error ? -1 : value;
}

static int ask(int fd, const char *name, int value) {
    char line[64] = "";
    int length = snprintf(line + 1, sizeof line - 1, "%s %d\n", name, value);
    return send(fd, line, length + 1, MSG_NOSIGNAL) < 0 ? -1 : answer(fd);
}

static int open_device(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    if (fd >= 0 && (connect(fd, (struct sockaddr *)&address, sizeof address) || answer(fd) < 0)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        if (is_device_path(path))                                                                                      \
            return open_device(path);                                                                                  \
        va_list arguments;                                                                                             \
        va_start(arguments, flags);                                                                                    \
        int mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, int) : 0;                                       \
        va_end(arguments);                                                                                             \
        return ((open_function *)dlsym(RTLD_NEXT, #name))(path, flags, mode);                                          \
    }
OPEN(open)
OPEN(open64)

int ioctl(int fd, unsigned long request, ...) {
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (!is_device(fd))
        return ((ioctl_function *)dlsym(RTLD_NEXT, "ioctl"))(fd, request, argument);

    int value;
    switch (request) {
    case WDIOC_GETSUPPORT:
        if ((value = ask(fd, "GETSUPPORT", 0)) < 0)
            return -1;
        *(struct watchdog_info *)argument = (struct watchdog_info){
            .options = WDIOF_KEEPALIVEPING | (value & CAN_SET_TIMEOUT ? WDIOF_SETTIMEOUT : 0) |
                       (value & CAN_BE_CLOSED ? WDIOF_MAGICCLOSE : 0),
            .firmware_version = 7,
            .identity = "Device of a test",
        };
        return 0;
    case WDIOC_SETTIMEOUT:
        if ((value = ask(fd, "SETTIMEOUT", *(int *)argument)) < 0)
            return -1;
        *(int *)argument = value;
        return 0;
    case WDIOC_GETTIMEOUT:
        if ((value = ask(fd, "GETTIMEOUT", 0)) < 0)
            return -1;
        *(int *)argument = value;
        return 0;
    case WDIOC_KEEPALIVE:
        return ask(fd, "KEEPALIVE", 0) < 0 ? -1 : 0;
    default:
        errno = ENOTTY;
        return -1;
    }
}
