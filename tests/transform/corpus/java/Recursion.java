public class Main {
    static long factorial(int n) { return n <= 1 ? 1 : n * factorial(n - 1); }

    static int fib(int n) {
        if (n < 2) return n;
        return fib(n - 1) + fib(n - 2);
    }

    static boolean even(int n) { if (n == 0) return true; else return odd(n - 1); }
    static boolean odd(int n) { if (n == 0) return false; else return even(n - 1); }

    private static void hanoi(int n, char from, char to, char via, StringBuilder log) {
        if (n > 0) {
            hanoi(n - 1, from, via, to, log);
            log.append(from).append(to).append(' ');
            hanoi(n - 1, via, to, from, log);
        }
    }

    public static void main(String[] args) {
        StringBuilder log = new StringBuilder();
        hanoi(3, 'a', 'b', 'c', log);
        System.out.println(factorial(12) + " " + fib(15) + " " + even(10) + " " + odd(10));
        System.out.println(log);
    }
}
