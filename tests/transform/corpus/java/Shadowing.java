public class Main {
    private int value = 7;
    private static int count = 0;

    Main(int value) {
        this.value = value;
        count++;
    }

    int sum(int n) {
        int total = value;
        for (int i = 0; i < n; i++) {
            int value = i;
            total += value;
        }
        return total + this.value;
    }

    static int local(int count) {
        count += 10;
        { int inner = count; count = inner * 2; }
        { int inner = 3; count += inner; }
        return count + Main.count;
    }

    public static void main(String[] args) {
        Main m = new Main(5);
        System.out.println(m.sum(4) + " " + local(1) + " " + count + " " + m.value);
    }
}
